// The page: one stream, four views over it, a key when the server wants one.
import './gauges.js';
import './blocks.js';
import './steps.js';
import './requests.js';
import { onKeyNeeded } from './chat.js';
import { byId, key } from './lib.js';
import { connect, onFrame, state, stop } from './stream.js';

const status = byId('status');
const pause = byId('pause');
const keyDialog = byId('key-dialog');
let paused = false;

function tell(kind, text) {
  if (kind === 'key') askKey(key.get() ? 'This key is not accepted.' : '');
  const said = { live: 'live', key: 'key needed', bad: text || 'no connection', paused: 'paused' }[kind];
  if (status.textContent !== said) status.textContent = said;
  status.className = `status ${kind === 'live' ? 'live' : kind === 'paused' ? '' : 'bad'}`;
}

function askKey(error = '') {
  byId('key').hidden = false;
  byId('key-error').textContent = error;
  if (!keyDialog.open) keyDialog.showModal();
}

byId('key-form').addEventListener('submit', (e) => {
  e.preventDefault();
  key.set(byId('key-input').value.trim());
  byId('key-input').value = '';
  keyDialog.close();
  if (!paused) connect(tell);
});
byId('key').addEventListener('click', () => askKey());
byId('key').hidden = !key.get();
onKeyNeeded(() => askKey('This server asks for a key.'));

pause.addEventListener('click', () => {
  paused = !paused;
  pause.setAttribute('aria-pressed', String(paused));
  pause.textContent = paused ? 'Resume' : 'Pause';
  if (paused) {
    stop();
    tell('paused');
  } else {
    connect(tell);
  }
});

// A page that nobody sees costs the engine nothing.
document.addEventListener('visibilitychange', () => {
  if (paused) return;
  if (document.hidden) stop();
  else connect(tell);
});

onFrame(() => {
  const model = state.info.model;
  if (byId('model').textContent !== model) {
    byId('model').textContent = model;
    document.title = `${model} · Pagoda`;
  }
});

// Tabs are there on narrow screens only; wide ones show everything.
const tabs = [...document.querySelectorAll('[role=tab]')];
function show(tab) {
  for (const t of tabs) {
    const mine = t === tab;
    t.setAttribute('aria-selected', String(mine));
    t.tabIndex = mine ? 0 : -1;
    byId(t.getAttribute('aria-controls')).classList.toggle('shown', mine);
  }
}
tabs.forEach((tab, i) => {
  tab.addEventListener('click', () => show(tab));
  tab.addEventListener('keydown', (e) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[e.key];
    if (!by) return;
    const next = tabs[(i + by + tabs.length) % tabs.length];
    show(next);
    next.focus();
  });
});

connect(tell);
