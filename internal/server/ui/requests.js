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
let asking = ''; // id of the request in the inspector

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

// listed puts what runs, and who else has sent it, before what waits and what has
// ended.
function listed() {
  const running = new Map();
  for (const q of state.requests) {
    const all = running.get(q.id) || [];
    all.push(q);
    running.set(q.id, all);
  }
  const mine = kept.map((q) => ({ ...q, live: running.get(q.id) || [], known: true }));
  const ids = new Set(kept.map((q) => q.id));
  const others = [...running].filter(([id]) => !ids.has(id)).map(([id, live]) => ({ id, live, known: false, finish: '' }));
  const all = [...others, ...mine];
  for (const q of all) q.group = !q.live.length ? 'ended' : q.live.some((l) => l.status === 'running') ? 'running' : 'waiting';
  return ['running', 'waiting', 'ended'].flatMap((group) => all.filter((q) => q.group === group));
}

function condition(q) {
  if (!q.live.length) return q.finish || 'ended';
  const states = [...new Set(q.live.map((l) => l.status))];
  const one = q.live[0];
  if (states.length === 1 && states[0] === 'running' && one.computed < one.prompt) return `prefill ${Math.floor((100 * one.computed) / one.prompt)} %`;
  return states.join(', ');
}

const put = (node, text) => node.textContent !== text && (node.textContent = text);

// Line is a row. It stays the same element for as long as its request is listed, and
// stays where it is while nothing must pass it: a press of the mouse, the focus and
// a reader outlive a frame.
class Line {
  constructor() {
    this.chip = el('span', { class: 'chip' });
    this.cells = Array.from({ length: 7 }, (_, i) => el('td', { class: i > 1 && 'num' }));
    this.tr = el('tr', { onmouseenter: () => point(this), onmouseleave: () => point(null) }, ...this.cells);
  }
  show(q) {
    const sum = (name) => q.live.reduce((n, l) => n + l[name], 0);
    const speed = !q.live.length && q.took_ms > q.ttft_ms && q.output > q.choices ? (1000 * (q.output - q.choices)) / (q.took_ms - q.ttft_ms) : 0;
    this.seq = q.live[0]?.seq || 0;
    const shade = this.seq ? colour(this.seq) : '';
    if (shade !== this.shade) this.chip.style.background = this.shade = shade;
    if (q.known !== this.known) {
      this.known = q.known;
      this.name = q.known ? el('button', { type: 'button', class: 'link', onclick: () => inspect(q.id), onfocus: () => point(this), onblur: () => point(null), title: q.id, 'data-id': q.id }) : el('span');
      this.cells[0].replaceChildren(this.chip, this.name);
    }
    put(this.name, (q.known && q.subject) || q.id);
    const texts = [
      condition(q),
      count(q.known ? q.prompt : q.live[0].prompt),
      count((q.live.length ? q.live[0].cached : q.cached) || 0),
      count(q.live.length ? sum('output') : q.output),
      q.ttft_ms ? duration(q.ttft_ms) : '–',
      speed ? rate(speed) : '–',
    ];
    texts.forEach((text, i) => put(this.cells[i + 1], text));
  }
}

const lines = new Map(); // by keyOf
const keyOf = (q) => `${q.id} ${q.created || ''}`; // clients may use an id again
let pointed = null; // the line whose blocks stand out
let pressed = false; // no row moves under a finger

function point(line) {
  pointed = line;
  highlight(line ? line.seq : 0);
}

function draw() {
  if (pressed) return;
  const list = listed();
  const focused = document.activeElement;
  const keys = new Set(list.map(keyOf));
  for (const [key, line] of lines) {
    if (keys.has(key)) continue;
    line.tr.remove();
    lines.delete(key);
    if (pointed === line) pointed = null;
  }
  for (const q of list) {
    if (!lines.has(keyOf(q))) lines.set(keyOf(q), new Line());
    const line = lines.get(keyOf(q));
    line.show(q);
    if (line.group !== q.group) line.tr.remove(); // it goes elsewhere, past the others
    line.group = q.group;
  }
  let at = rows.firstElementChild;
  for (const q of list) {
    const { tr } = lines.get(keyOf(q));
    if (tr === at) at = at.nextElementSibling;
    else rows.insertBefore(tr, at);
  }
  if (focused !== document.activeElement && rows.contains(focused)) focused.focus({ preventScroll: true });
  highlight(pointed ? pointed.seq : 0);
  const more = state.more ? `${count(state.more)} more not shown` : '';
  put(note, list.length ? more || 'choose one to look inside' : 'none yet');
}

rows.addEventListener('pointerdown', (e) => (pressed = e.button === 0));
for (const end of ['pointerup', 'pointercancel']) {
  addEventListener(end, () => {
    if (pressed) setTimeout(() => ((pressed = false), draw()), 50); // after the click, which a touch brings a little later
  });
}

const fact = (name, value, wide) => el('div', { class: wide && 'wide' }, el('dt', {}, name), el('dd', {}, value));

// inspect opens the inspector on a request, by the id of its response.
export async function inspect(id) {
  asking = id;
  byId('inspected-title').textContent = id;
  body.replaceChildren(el('p', { class: 'muted' }, 'Loading'));
  if (!dialog.open) dialog.showModal();
  let found = null;
  let error = 'The connection was lost.';
  try {
    const response = await call(`ui/api/requests/${encodeURIComponent(id)}`);
    if (response.ok) found = await response.json();
    else error = await failure(response);
  } catch {
    // that is what error says
  }
  if (asking !== id) return; // another was chosen since
  if (found) show(found);
  else body.replaceChildren(el('p', { role: 'alert' }, error));
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
    el('span', { role: 'option', class: `token ${t.special ? 'special' : ''} ${surprise(t.logprob)}`, 'aria-selected': 'false', 'aria-label': t.text.trim() === '' && quoted(t), onpointerenter: () => choose(i), onclick: () => choose(i) }, visibleText(t)),
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
      const steps = !e.to ? '' : e.from === e.to ? `step ${e.from}` : `steps ${e.from}–${e.to}`;
      const text = { decode: plural(e.tokens, 'token'), prefill: `${plural(e.tokens, 'token')}, positions ${e.text}`, wait: e.text && `because: ${e.text}` }[e.kind] || e.text;
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
onTheme(draw);
