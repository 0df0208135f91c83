// The one live stream: frames are put together into the state that all views draw.
import { call, events, failure } from './lib.js';

export const state = {
  info: null,
  stats: null,
  requests: [],
  more: 0,
  blocks: [], // by id: [id, state, refs, tokens, hash, taken, touched, owner…]
  steps: [], // the last ones
};

const keptSteps = 1024;
const listeners = [];
let received = 0; // when the last frame came, and what the engine's clock said
let clock = 0;
let abort = null;
let retry = 0;

// onFrame calls f(frame, changed) after each frame; changed are block ids, null for all.
export const onFrame = (f) => listeners.push(f);

// now is the engine's clock in milliseconds.
export const now = () => clock + (received ? performance.now() - received : 0);

function apply(frame) {
  received = performance.now();
  clock = frame.now_ms;
  let changed = null;
  if (frame.full) {
    state.info = frame.info;
    state.blocks = [];
    state.steps = [];
  } else {
    changed = [];
  }
  state.stats = frame.stats;
  state.requests = frame.requests;
  state.more = frame.more || 0;
  for (const block of frame.blocks || []) {
    state.blocks[block[0]] = block;
    if (changed) changed.push(block[0]);
  }
  for (const step of frame.steps || []) state.steps.push(step);
  if (state.steps.length > keptSteps) state.steps.splice(0, state.steps.length - keptSteps);
  for (const f of listeners) f(frame, changed);
}

// connect keeps the stream open until stop. tell(status, text) says how it goes;
// status is live, wait, key or bad.
export async function connect(tell) {
  const mine = new AbortController();
  stop();
  abort = mine;
  while (!mine.signal.aborted) {
    let said = 'no connection';
    try {
      const response = await call('ui/api/stream', { signal: mine.signal });
      if (response.status === 401) return tell('key');
      if (response.status === 403) return tell('bad', await failure(response));
      if (!response.ok) throw new Error(await failure(response));
      retry = 0;
      await events(response.body, (data) => {
        if (mine.signal.aborted) return;
        apply(JSON.parse(data));
        tell('live');
      });
    } catch (err) {
      if (mine.signal.aborted) return;
      if (!(err instanceof TypeError)) said = err.message;
    }
    if (mine.signal.aborted) return;
    tell('bad', said);
    retry = Math.min(retry + 1, 6);
    await new Promise((done) => {
      const timer = setTimeout(done, 250 * 2 ** retry);
      mine.signal.addEventListener('abort', () => (clearTimeout(timer), done()), { once: true });
    });
  }
}

export function stop() {
  if (abort) abort.abort();
  abort = null;
}
