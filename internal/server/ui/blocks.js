// The map of all KV blocks: colour = sequence, hatched in several = shared, grey = cached.
import { byId, colour, count, duration, el, fit, hint, onTheme, plural, theme } from './lib.js';
import { now, onFrame, state } from './stream.js';

const canvas = byId('blocks-map');
const detail = byId('block-detail');
const mostHeight = 340;
const free = (id) => [id, 'f', 0, 0, '', 0, 0];

let c = null; // context
let columns = 0;
let pitch = 0; // pixels from cell to cell
let total = 0;
let chosen = 0; // block under the pointer or the keyboard's cursor; 0 = none
let lit = 0; // sequence whose blocks stand out; 0 = all
let pinned = 0; // the same from outside, of a request under the pointer
let written = ''; // what detail says
let colours = {};

const block = (id) => state.blocks[id] || free(id);

// layout chooses the largest cell with which the pool fits.
function layout() {
  total = state.stats?.blocks_shown || 0;
  const width = canvas.clientWidth;
  if (!width || !total) return;
  for (pitch = 22; pitch > 4; pitch--) {
    columns = Math.floor(width / pitch);
    if (Math.ceil(total / columns) * pitch <= mostHeight) break;
  }
  columns = Math.floor(width / pitch);
  const height = Math.ceil(total / columns) * pitch;
  canvas.style.height = `${height}px`;
  c = fit(canvas, width, height);
  colours = Object.fromEntries(['cached', 'free', 'flight', 'panel', 'text'].map((n) => [n, theme(`--${n}`)]));
  drawAll();
}

const place = (id) => [((id - 1) % columns) * pitch, Math.floor((id - 1) / columns) * pitch];

function draw(id) {
  if (!c || id > total) return;
  const [, kind, refs, tokens, , , , ...owners] = block(id);
  const [x, y] = place(id);
  const size = pitch - (pitch > 6 ? 2 : 1);
  c.globalAlpha = 1;
  c.fillStyle = colours.panel;
  c.fillRect(x, y, pitch, pitch);
  if (kind === 'r') return;
  const shown = pinned || lit;
  if (shown && !owners.includes(shown)) c.globalAlpha = 0.22;
  c.fillStyle = kind === 'c' ? colours.cached : colours.free;
  c.fillRect(x, y, size, size);
  if (kind === 'u') {
    const full = state.info?.block_size || 1;
    c.fillStyle = owners.length ? colour(owners[0]) : colours.text;
    if (refs > 1 && owners.length > 1) {
      hatch(x, y, size, owners);
    } else {
      c.globalAlpha *= 0.35; // what is reserved and still empty
      c.fillRect(x, y, size, size);
      c.globalAlpha /= 0.35;
      c.fillRect(x, y, Math.max(1, (size * Math.min(tokens, full)) / full), size);
    }
  } else if (kind === 'i') {
    c.strokeStyle = colours.flight;
    c.lineWidth = pitch > 8 ? 2 : 1;
    c.strokeRect(x + c.lineWidth / 2, y + c.lineWidth / 2, size - c.lineWidth, size - c.lineWidth);
  }
  if (id === chosen) {
    c.globalAlpha = 1;
    c.strokeStyle = colours.text;
    c.lineWidth = 2;
    c.strokeRect(x + 1, y + 1, size - 2, size - 2);
  }
  c.globalAlpha = 1;
}

// hatch fills a cell with diagonal stripes in the colours of those that share it.
function hatch(x, y, size, owners) {
  c.save();
  c.beginPath();
  c.rect(x, y, size, size);
  c.clip();
  const gap = size > 12 ? 4 : size > 6 ? 3 : 2;
  c.lineWidth = gap * 0.75; // a little of the ground shows between two
  c.fillStyle = colours.panel;
  c.fillRect(x, y, size, size);
  for (let d = 0, i = 0; d < 2 * size + gap; d += gap * Math.SQRT2, i++) {
    c.beginPath();
    c.moveTo(x + d, y);
    c.lineTo(x, y + d);
    c.strokeStyle = colour(owners[i % owners.length]);
    c.stroke();
  }
  c.restore();
}

// describe writes what the chosen block is; only a choice is read aloud.
function describe(aloud) {
  const [name, text] = words();
  if (name + text === written) return;
  written = name + text;
  detail.ariaLive = aloud ? 'polite' : 'off';
  detail.replaceChildren(name ? el('b', {}, name) : '', text);
}

function words() {
  const s = state.stats;
  if (!chosen || chosen > total) {
    const ids = s && s.blocks_total > total ? `The first ${count(total)} of ${count(s.blocks_total)} blocks. ` : '';
    return ['', s ? `${ids}${plural(state.info.block_size, 'token')} a block. ${hint('one')}` : ''];
  }
  const [id, kind, refs, tokens, hash, taken, touched, ...owners] = block(chosen);
  const parts = [];
  if (kind === 'u') {
    parts.push(owners.length ? `${owners.length > 1 ? 'sequences' : 'sequence'} ${owners.join(', ')}${refs > owners.length ? ` and ${refs - owners.length} more` : ''}` : 'in use');
    parts.push(plural(refs, 'reference'), `${tokens} of ${state.info.block_size} slots`);
  } else {
    parts.push({ f: 'free', c: 'cached: nobody has it, the next equal prefix gets it', i: 'being copied to or from the host', r: 'no longer part of the pool' }[kind]);
  }
  if (hash) parts.push(`hash ${hash}…`);
  if (kind !== 'f') {
    parts.push(`content ${duration(Math.max(0, now() - taken))} old`);
    if (touched > taken) parts.push(`${kind === 'c' ? 'given up' : 'last joined or left'} ${duration(Math.max(0, now() - touched))} ago`);
  }
  return [`Block ${count(id)}`, ` ${parts.join(' · ')}`];
}

function drawAll() {
  for (let id = 1; id <= total; id++) draw(id);
}

// light makes the blocks of the chosen one's owner stand out, and says whether that
// changed the map.
function light() {
  const owner = chosen ? block(chosen)[7] || 0 : 0;
  if (owner === lit) return false;
  lit = owner;
  drawAll();
  return true;
}

function choose(id) {
  if (id === chosen) return;
  const before = chosen;
  chosen = id;
  if (!light()) {
    if (before) draw(before);
    if (chosen) draw(chosen);
  }
  describe(true);
}

// highlight makes one sequence's blocks stand out; 0 ends that.
export function highlight(seq) {
  if (seq === pinned) return;
  pinned = seq;
  drawAll();
}

const point = (e) => {
  const column = Math.floor(e.offsetX / pitch);
  const id = Math.floor(e.offsetY / pitch) * columns + column + 1;
  choose(column < columns && id <= total ? id : 0);
};
canvas.addEventListener('pointermove', point);
canvas.addEventListener('pointerdown', point);
canvas.addEventListener('pointerleave', (e) => e.pointerType === 'mouse' && choose(0));
canvas.addEventListener('blur', () => choose(0));
canvas.addEventListener('keydown', (e) => {
  const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -total, End: total }[e.key];
  if (e.key === 'Escape') choose(0);
  if (by === undefined || !total) return;
  e.preventDefault();
  choose(chosen ? Math.min(Math.max(chosen + by, 1), total) : 1);
});

onFrame((frame, changed) => {
  const s = state.stats;
  canvas.setAttribute('aria-label', `Map of ${count(s.blocks_total)} KV blocks: ${count(s.blocks_used)} in use, ${count(s.blocks_shared)} of them shared, ${count(s.blocks_cached)} cached`);
  if (!changed || s.blocks_shown !== total || !c) layout();
  else if (!light()) changed.forEach(draw);
  describe();
});
setInterval(() => chosen && describe(), 500);
new ResizeObserver(layout).observe(canvas.parentElement);
onTheme(layout);
