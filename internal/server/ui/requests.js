// The list of requests, and the inspector of one.
import { highlight } from './blocks.js';
import { byId, call, colour, count, duration, el, failure, onTheme, plural, rate } from './lib.js';
import { onFrame, state } from './stream.js';

const rows = byId('request-rows');
const note = byId('requests-note');
const dialog = byId('inspector');
const body = byId('inspected');
const again = byId('inspector-again');
let kept = []; // what the server keeps, the newest first
let asked = 0;
let waiting = null; // timer of the next request for the list
let drawn = '';

// refresh asks for the list, at most twice a second.
function refresh() {
  if (waiting) return;
  waiting = setTimeout(async () => {
    waiting = null;
    asked = performance.now();
    try {
      const response = await call('ui/api/requests');
      if (response.ok) kept = (await response.json()).requests;
    } catch {
      return; // the stream tells of a lost connection
    }
    draw();
  }, Math.max(0, asked + 500 - performance.now()));
}

// lines puts what runs, and who else has sent it, before what has ended.
function lines() {
  const running = new Map();
  for (const q of state.requests) {
    const all = running.get(q.id) || [];
    all.push(q);
    running.set(q.id, all);
  }
  const mine = kept.map((q) => ({ ...q, live: running.get(q.id) || [], known: true }));
  const ids = new Set(kept.map((q) => q.id));
  const others = [...running].filter(([id]) => !ids.has(id)).map(([id, live]) => ({ id, live, known: false, finish: '' }));
  return [...others, ...mine.filter((q) => q.live.length), ...mine.filter((q) => !q.live.length)];
}

function condition(q) {
  if (!q.live.length) return q.finish || 'ended';
  const states = [...new Set(q.live.map((l) => l.status))];
  const one = q.live[0];
  if (states.length === 1 && states[0] === 'running' && one.computed < one.prompt) return `prefill ${Math.floor((100 * one.computed) / one.prompt)} %`;
  return states.join(', ');
}

function row(q) {
  const sum = (name) => q.live.reduce((n, l) => n + l[name], 0);
  const output = q.live.length ? sum('output') : q.output;
  const prompt = q.known ? q.prompt : q.live[0].prompt;
  const cached = q.live.length ? q.live[0].cached : q.cached;
  const speed = !q.live.length && q.took_ms > q.ttft_ms && q.output > q.choices ? (1000 * (q.output - q.choices)) / (q.took_ms - q.ttft_ms) : 0;
  const seq = q.live[0]?.seq || 0;
  const chip = el('span', { class: 'chip' });
  if (seq) chip.style.background = colour(seq);
  const name = q.known ? q.subject || q.id : q.id;
  return el(
    'tr',
    { onmouseenter: () => highlight(seq), onmouseleave: () => highlight(0) },
    el('td', {}, chip, q.known ? el('button', { type: 'button', class: 'link', onclick: () => inspect(q.id), onfocus: () => highlight(seq), onblur: () => highlight(0), title: q.id, 'data-id': q.id }, name) : name),
    el('td', {}, condition(q)),
    el('td', { class: 'num' }, count(prompt)),
    el('td', { class: 'num' }, count(cached || 0)),
    el('td', { class: 'num' }, count(output)),
    el('td', { class: 'num' }, q.ttft_ms ? duration(q.ttft_ms) : '–'),
    el('td', { class: 'num' }, speed ? rate(speed) : '–'),
  );
}

function draw() {
  const list = lines();
  const text = JSON.stringify(list);
  if (text === drawn) return;
  drawn = text;
  const focused = document.activeElement?.dataset?.id;
  rows.replaceChildren(...list.map(row));
  if (focused) rows.querySelector(`[data-id="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  const more = state.more ? `${count(state.more)} more not shown` : '';
  note.textContent = list.length ? more || 'choose one to look inside' : 'none yet';
}

const fact = (name, value, wide) => el('div', { class: wide && 'wide' }, el('dt', {}, name), el('dd', {}, value));

// inspect opens the inspector on a request, by the id of its response.
export async function inspect(id) {
  byId('inspected-title').textContent = id;
  body.replaceChildren(el('p', { class: 'muted' }, 'Loading'));
  if (!dialog.open) dialog.showModal();
  const response = await call(`ui/api/requests/${encodeURIComponent(id)}`);
  if (!response.ok) {
    body.replaceChildren(el('p', { role: 'alert' }, await failure(response)));
    return;
  }
  show(await response.json());
}

function show(q) {
  again.hidden = q.finish !== '';
  again.onclick = () => inspect(q.id);
  const s = q.sampling;
  const first = q.choice_list[0];
  byId('inspected-title').textContent = q.subject || q.id;
  body.replaceChildren(
    el(
      'dl',
      { class: 'facts' },
      fact('State', q.finish || 'running'),
      fact('Prompt', `${plural(q.prompt, 'token')}, ${count(q.cached)} cached`),
      fact('Output', plural(q.output, 'token')),
      fact('Time to first token', q.ttft_ms ? duration(q.ttft_ms) : '–'),
      fact('Template and tokenizer', duration(q.encode_ms)),
      fact('In the queue', first?.total ? duration(first.queue_ms) : '–'),
      fact('In all', q.took_ms ? duration(q.took_ms) : '–'),
      fact('Drawn with', [`temperature ${s.temperature}`, s.top_p < 1 && `top p ${s.top_p}`, s.top_k > 0 && `top k ${s.top_k}`, s.min_p > 0 && `min p ${s.min_p}`, s.seed !== null && `seed ${s.seed}`].filter(Boolean).join(', '), true),
      fact('Id', el('code', {}, q.id), true),
    ),
    ...q.choice_list.flatMap((c, i) => choice(c, q.choice_list.length > 1 ? `, answer ${i + 1}` : '')),
    el('h3', {}, 'Prompt as rendered'),
    el('pre', { tabIndex: 0 }, q.text || (q.prompts.length ? '(sent as token ids)' : ''), q.text_cut ? `\n… and ${count(q.text_cut)} bytes more` : ''),
    ...q.prompts.flatMap((p, i) => [el('h3', {}, `Prompt as tokens${q.prompts.length > 1 ? `, ${i + 1}` : ''} (${count(p.total)})`), ...tokens(p.tokens, p.total)]),
  );
}

function choice(c, which) {
  return [
    el('h3', {}, `Output as tokens${which} (${count(c.total)})`),
    ...tokens(c.tokens, c.total),
    el('h3', {}, `Life${which}${c.seq ? `, as sequence ${c.seq}` : ''}${c.preemptions ? `, preempted ${plural(c.preemptions, 'time')}` : ''}`),
    c.life.length ? life(c) : el('p', { class: 'muted' }, c.seq ? 'Its steps are no longer kept.' : 'It has not run.'),
    c.life_cut ? el('p', { class: 'muted' }, 'Earlier steps are no longer kept.') : null,
  ].filter(Boolean);
}

// visibleText shows what a token is where white space would not.
const visibleText = (t) => (t.text === '' ? `#${t.id}` : t.text.replace(/\n/g, '↵\n').replace(/\t/g, '⇥'));
const quoted = (t) => JSON.stringify(t.text === '' ? `#${t.id}` : t.text);
const surprise = (p) => (p === undefined ? '' : p > Math.log(0.5) ? 'p1' : p > Math.log(0.1) ? 'p2' : 'p3');

// tokens is a list to walk with the arrow keys, and the details of one.
function tokens(list, total) {
  const detail = el('div', { class: 'token-detail', 'aria-live': 'polite' });
  const spans = list.map((t, i) =>
    el('span', { role: 'option', class: `token ${t.special ? 'special' : ''} ${surprise(t.logprob)}`, 'aria-selected': 'false', onpointerenter: () => choose(i), onclick: () => choose(i) }, visibleText(t)),
  );
  let at = -1;
  function choose(i) {
    if (at >= 0) spans[at].setAttribute('aria-selected', 'false');
    at = i;
    spans[i].setAttribute('aria-selected', 'true');
    const t = list[i];
    const likely = t.logprob === undefined ? '' : ` · probability ${percentOf(t.logprob)} · log probability ${t.logprob.toFixed(3)}${t.rank ? ` · rank ${t.rank}` : ''}`;
    detail.replaceChildren(
      `Token ${i + 1}: `,
      el('code', {}, quoted(t)),
      ` · id ${t.id}${t.special ? ' · special' : ''}${likely}`,
      ...(t.top ? [el('br'), 'likeliest: ', ...t.top.flatMap((o, k) => [k ? ', ' : '', el('code', {}, quoted(o)), ` ${percentOf(o.logprob)}`])] : []),
    );
  }
  const box = el('div', {
    class: 'tokens',
    role: 'listbox',
    tabIndex: 0,
    'aria-label': 'Tokens; use the arrow keys',
    onkeydown: (e) => {
      const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -10, ArrowDown: 10, Home: -list.length, End: list.length }[e.key];
      if (by === undefined || !list.length) return;
      e.preventDefault();
      choose(at < 0 ? 0 : Math.min(Math.max(at + by, 0), list.length - 1));
      spans[at].scrollIntoView({ block: 'nearest' });
    },
  });
  box.append(...spans);
  if (total > list.length) box.append(el('span', { class: 'muted' }, ` … and ${count(total - list.length)} more`));
  detail.textContent = list.length ? (list[0].logprob === undefined ? 'Point at a token.' : 'Point at a token. The line under it: green over 50 %, amber over 10 %, red below.') : 'none';
  return [box, detail];
}

const percentOf = (logprob) => `${(100 * Math.exp(logprob)).toFixed(1)} %`;

const lifeNames = { wait: 'waits', admit: 'admitted', prefill: 'prefill', decode: 'decode', preempt: 'preempted', sit: 'sits out' };

function life(c) {
  const end = Math.max(...c.life.map((e) => e.to_ms), 1e-9);
  return el(
    'ol',
    { class: 'life' },
    ...c.life.map((e) => {
      const mark = el('i');
      mark.style.left = `${(100 * e.from_ms) / end}%`;
      mark.style.width = `${(100 * (e.to_ms - e.from_ms)) / end}%`;
      const steps = e.from === e.to ? `step ${e.from}` : `steps ${e.from}–${e.to}`;
      const text = { decode: plural(e.tokens, 'token'), prefill: `${plural(e.tokens, 'token')}, positions ${e.text}`, wait: `for ${e.text}` }[e.kind] || e.text;
      return el('li', { class: e.kind }, el('span', { class: 'muted' }, duration(e.from_ms)), el('span', {}, lifeNames[e.kind]), el('span', { class: 'track', 'aria-hidden': 'true' }, mark), el('span', {}, text, ' ', el('span', { class: 'muted' }, steps)));
    }),
  );
}

byId('inspector-close').addEventListener('click', () => dialog.close());
dialog.addEventListener('click', (e) => e.target === dialog && dialog.close());

let finished = -1;
let ids = '';
onFrame((frame) => {
  const now = state.requests.map((q) => q.id).join();
  if (frame.full || frame.stats.finished !== finished || now !== ids) refresh();
  finished = frame.stats.finished;
  ids = now;
  draw();
});
onTheme(() => ((drawn = ''), draw()));
