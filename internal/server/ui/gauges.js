// Queue and KV gauges: the newest numbers, and rates over the last two seconds.
import { byId, bytes, count, duration, el, fit, onTheme, percent, plural, rate, theme } from './lib.js';
import { now, onFrame, state } from './stream.js';

const history = []; // {at, generated} of the frames of the last minute
const sparks = []; // tok/s, two a second
const mostSparks = 120;

const dl = byId('gauges');
const gauge = (name, below) => {
  const value = el('dd');
  dl.append(el('div', {}, el('dt', {}, name), value, below));
  return value;
};
const sub = (...children) => el('dd', { class: 'sub' }, ...children);
const spark = el('canvas', { 'aria-hidden': 'true' });
const queueSub = sub();
const stepSub = sub();
const hitSub = sub();
const sharedSub = sub();
const preemptSub = sub();
const generated = gauge('Generated', sub(spark));
const queue = gauge('Running', queueSub);
const hits = gauge('Prefix hits', hitSub);
const shared = gauge('Shared blocks', sharedSub);
const step = gauge('Step', stepSub);
const preempted = gauge('Preempted', preemptSub);

function value(node, text, unit = '') {
  node.replaceChildren(text, unit && el('small', {}, ` ${unit}`));
}

// perSecond is the speed of generation over the last two seconds, prefilled that of
// prompts.
function perSecond() {
  const at = now();
  const since = history.findLast((h) => h.at <= at - 2000) || history[0];
  const last = history.at(-1);
  if (!since || since === last) return 0;
  return (1000 * (last.generated - since.generated)) / Math.max(at - since.at, 500);
}

function prefilled() {
  const since = now() - 2000;
  let tokens = 0;
  for (let i = state.steps.length - 1; i >= 0 && state.steps[i].at_ms > since; i--) tokens += state.steps[i].prefill;
  return tokens / 2;
}

function tick() {
  if (!state.stats) return;
  const speed = perSecond();
  value(generated, rate(speed), 'tok/s');
  stepSub.textContent = `prefill ${rate(prefilled())} tok/s`;
  sparks.push(speed);
  if (sparks.length > mostSparks) sparks.shift();
  draw();
}

function draw() {
  const width = spark.clientWidth;
  if (!width) return;
  const height = 22;
  const c = fit(spark, width, height);
  const most = Math.max(...sparks, 1e-9);
  c.beginPath();
  sparks.forEach((v, i) => {
    const x = width - ((sparks.length - 1 - i) * width) / (mostSparks - 1);
    c.lineTo(x, height - 2 - (v / most) * (height - 4));
  });
  c.strokeStyle = theme('--decode');
  c.lineWidth = 1.5;
  c.lineJoin = 'round';
  c.stroke();
}

function bar(s) {
  const parts = [
    ['shared', s.blocks_shared, 'shared'],
    ['own', s.blocks_used - s.blocks_shared, 'of one sequence'],
    ['flight', s.blocks_in_flight, 'being copied'],
    ['cached', s.blocks_cached, 'cached'],
  ];
  const node = byId('pool-bar');
  node.replaceChildren(
    ...parts.map(([name, n]) => {
      const part = el('i', { class: name });
      part.style.width = `${(100 * n) / Math.max(s.blocks_total, 1)}%`;
      return part;
    }),
  );
  const text = [...parts.filter((p) => p[1] > 0).map((p) => `${count(p[1])} ${p[2]}`), `${count(s.blocks_free)} free`].join(', ');
  node.setAttribute('aria-label', `Blocks: ${text}, of ${count(s.blocks_total)}`);
  const host = s.host_total ? ` · swap pool ${count(s.host_used)} of ${count(s.host_total)}` : '';
  byId('pool').textContent = `${count(s.blocks_used)} of ${count(s.blocks_total)} in use (${percent(s.blocks_used, s.blocks_total)}) · ${count(s.blocks_cached)} cached · ${count(s.blocks_free)} free${host}`;
}

onFrame((frame) => {
  const s = state.stats;
  if (frame.full) history.length = 0;
  history.push({ at: frame.now_ms, generated: s.generated_tokens });
  while (history.length > 2 && history[1].at < frame.now_ms - 60e3) history.shift();
  value(queue, count(s.running), s.running === 1 ? 'sequence' : 'sequences');
  queueSub.textContent = `${count(s.waiting)} waiting${s.swapped ? `, ${count(s.swapped)} swapped` : ''}`;
  value(hits, percent(s.cached_tokens, s.looked_up_tokens));
  hitSub.textContent = `${count(s.cached_tokens)} tokens`;
  value(shared, count(s.blocks_shared));
  sharedSub.textContent = `saves ${bytes(s.blocks_saved * (state.info?.block_bytes || 0))}`;
  value(step, ...(s.step_us ? duration(s.step_us / 1000).split(' ') : ['–']));
  value(preempted, count(s.preemptions));
  preemptSub.textContent = s.evictions ? plural(s.evictions, 'eviction') : 'no evictions';
  bar(s);
});
setInterval(tick, 500);
onTheme(draw);
