// The scheduler's timeline, a column a step: prefill tokens, decodes, what waits, and
// what was preempted or swapped. Pointing at a step shows its record in words.
import { byId, count, duration, el, fit, hint, onTheme, percent, plural, theme } from './lib.js';
import { onFrame, state } from './stream.js';

const canvas = byId('steps-chart');
const detail = byId('step-detail');
const gutter = 96;
const width = 5; // of a column
const lanes = [
  { name: 'prefill', of: (s) => s.prefill, top: 0, height: 52 },
  { name: 'decode', of: (s) => s.decodes, top: 58, height: 44 },
  { name: 'wait', of: (s) => s.waiting, top: 108, height: 20 },
];
const events = 140; // the line of preemptions and swaps
let chosen = null; // number of a step; null = none
let painted = '';

function visible() {
  const n = Math.max(1, Math.floor((canvas.clientWidth - gutter) / width));
  return state.steps.slice(-n);
}

function draw() {
  const all = canvas.clientWidth;
  if (!all) return;
  const steps = visible();
  const c = fit(canvas, all, 150);
  const left = all - steps.length * width;
  c.font = '11px system-ui, sans-serif';
  c.textBaseline = 'middle';
  const at = steps.findIndex((s) => s.n === chosen);
  if (at >= 0) {
    c.fillStyle = theme('--line');
    c.fillRect(left + at * width - 1, 0, width + 1, 150);
  }
  for (const lane of lanes) {
    const most = Math.max(...steps.map(lane.of), 0);
    const base = lane.top + lane.height;
    c.fillStyle = theme('--line');
    c.fillRect(gutter - 6, base, all - gutter + 6, 1);
    c.fillStyle = theme(`--${lane.name}`);
    steps.forEach((s, i) => {
      const v = lane.of(s);
      if (v > 0) {
        const h = Math.max(1.5, (v / most) * (lane.height - 2));
        c.fillRect(left + i * width, base - h, width - 1, h);
      }
    });
    c.fillStyle = theme('--muted');
    c.fillText(lane.name === 'wait' ? 'waiting' : lane.name, 0, base - lane.height / 2 - (lane.height > 30 ? 7 : 0));
    if (lane.height > 30) c.fillText(most ? `≤ ${count(most)} tok` : '–', 0, base - lane.height / 2 + 7);
    else if (most) c.fillText(`≤ ${count(most)}`, 44, base - lane.height / 2);
  }
  c.fillStyle = theme('--muted');
  c.fillText('events', 0, events);
  steps.forEach((s, i) => {
    const x = left + i * width + width / 2 - 0.5;
    if (s.swap_in || s.swap_out) mark(c, x, '--swap', false);
    if (s.swaps || s.recomputes) mark(c, x, '--preempt', true);
  });
}

function mark(c, x, name, round) {
  c.fillStyle = theme(name);
  c.beginPath();
  if (round) c.arc(x, events, 3.5, 0, 7);
  else c.rect(x - 2, events - 5, 4, 10);
  c.fill();
}

// describe writes what the chosen step was; only a choice is read aloud.
function describe(aloud) {
  const found = state.steps.find((s) => s.n === chosen);
  // Without a choice: the last step that had a reason to give.
  const s = found || state.steps.findLast((step) => step.why.length > 1);
  const text = s ? `${found ? '' : 'Last decision: '}step ${s.n}` : 'none';
  if (text === painted) return;
  painted = text;
  detail.ariaLive = aloud ? 'polite' : 'off';
  if (!s) {
    detail.replaceChildren(hint('a step'));
    return;
  }
  const facts = [
    s.took_us ? duration(s.took_us / 1000) : null,
    `at ${duration(s.at_ms)}`,
    plural(s.prefill + s.decodes, 'token'),
    `${plural(s.running, 'sequence')} running, ${count(s.waiting)} waiting`,
    `KV ${percent(s.used, s.total)}`,
  ].filter(Boolean);
  detail.replaceChildren(
    found ? '' : 'Last decision: ',
    el('b', {}, `Step ${count(s.n)}`),
    ` · ${facts.join(' · ')}`,
    el('ul', {}, ...s.why.map((line) => el('li', {}, line))),
  );
}

function choose(n) {
  if (n === chosen) return;
  chosen = n;
  draw();
  describe(true);
}

const point = (e) => {
  const steps = visible();
  const i = Math.floor((e.offsetX - (canvas.clientWidth - steps.length * width)) / width);
  choose(steps[i]?.n ?? null);
};
canvas.addEventListener('pointermove', point);
canvas.addEventListener('pointerdown', point);
canvas.addEventListener('pointerleave', (e) => e.pointerType === 'mouse' && choose(null));
canvas.addEventListener('blur', () => choose(null));
canvas.addEventListener('keydown', (e) => {
  const steps = visible();
  if (e.key === 'Escape') choose(null);
  const by = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[e.key];
  if (by === undefined || !steps.length) return;
  e.preventDefault();
  const at = steps.findIndex((s) => s.n === chosen);
  choose(steps[at < 0 ? steps.length - 1 : Math.min(Math.max(at + by, 0), steps.length - 1)].n);
});

onFrame((frame) => {
  if (!frame.full && !frame.steps) return;
  const last = state.steps.at(-1);
  canvas.setAttribute('aria-label', `The last ${count(state.steps.length)} steps of the scheduler${last ? `; the newest has ${plural(last.decodes, 'decode')} and ${plural(last.prefill, 'prefill token')}` : ''}`);
  draw();
  describe();
});
new ResizeObserver(draw).observe(canvas);
onTheme(draw);
