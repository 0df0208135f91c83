// A chat over the OpenAI API, with the speed of each answer as it comes.
import { byId, call, count, duration, el, events, failure, rate } from './lib.js';
import { inspect } from './requests.js';
import { onFrame, state } from './stream.js';

const talk = byId('talk');
const form = byId('ask');
const prompt = byId('prompt');
const send = byId('send');
let turns = []; // what the model is told: {role, content}
let running = null; // AbortController of the answer that is being written
let needKey = () => {};

export const onKeyNeeded = (f) => (needKey = f);

// fields reads the sampling form; an empty field is the server's default.
function fields() {
  const out = {};
  for (const input of byId('sampling').querySelectorAll('input[type=number]')) {
    if (!input.validity.valid) throw new Error(`${input.labels[0].textContent.trim()}: ${input.validationMessage}`);
    if (input.value !== '') out[input.name] = Number(input.value);
  }
  if (byId('sampling').querySelector('[name=logprobs]').checked) Object.assign(out, { logprobs: true, top_logprobs: Math.min(5, state.info?.max_logprobs ?? 5) });
  return out;
}

function body(text, options) {
  const common = { stream: true, stream_options: { include_usage: true, continuous_usage_stats: true }, ...options };
  if (state.info && !state.info.chat) {
    const { logprobs, top_logprobs: top, ...rest } = common;
    return ['v1/completions', { prompt: text, ...rest, ...(logprobs ? { logprobs: top } : {}) }];
  }
  const system = byId('sampling').querySelector('[name=system]').value.trim();
  return ['v1/chat/completions', { messages: [...(system ? [{ role: 'system', content: system }] : []), ...turns], ...common }];
}

function turn(kind, who, text) {
  const node = { text: el('div', { class: 'text' }, text), meta: el('div', { class: 'meta' }) };
  node.root = el('div', { class: `turn ${kind}` }, el('div', { class: 'who' }, who), node.text, node.meta);
  talk.append(node.root);
  return node;
}

const atEnd = () => talk.scrollHeight - talk.scrollTop - talk.clientHeight < 40;
const toEnd = () => (talk.scrollTop = talk.scrollHeight);

// answer is one choice of the response as it is shown.
class Answer {
  constructor(index, many) {
    this.node = turn('assistant running', many ? `${state.info?.model || 'Model'}, answer ${index + 1}` : state.info?.model || 'Model', '');
    this.index = index;
    this.content = '';
    this.tokens = 0;
    this.began = performance.now();
  }
  add(chunk, choice) {
    const text = choice.delta ? choice.delta.content || '' : choice.text || '';
    if (chunk.usage && (text || choice.finish_reason)) {
      this.tokens = chunk.usage.completion_tokens;
      this.usage = chunk.usage;
    }
    if (text) {
      this.first ??= performance.now();
      this.firstTokens ??= this.tokens;
      this.last = performance.now();
      this.content += text;
      this.node.text.append(text);
    }
    if (choice.finish_reason) this.finish = choice.finish_reason;
    this.tell();
  }
  tell(id) {
    const parts = [];
    if (this.first) parts.push(`first token ${duration(this.first - this.began)}`);
    const span = this.last - this.first;
    if (span > 0 && this.tokens > this.firstTokens) parts.push(`${rate((1000 * (this.tokens - this.firstTokens)) / span)} tok/s`);
    if (this.tokens) parts.push(`${count(this.tokens)} tokens`);
    const cached = this.usage?.prompt_tokens_details?.cached_tokens;
    if (this.index > 0 && this.usage) parts.push('shares the prompt');
    else if (cached) parts.push(`${count(cached)} of ${count(this.usage.prompt_tokens)} prompt tokens cached`);
    if (this.finish && this.finish !== 'stop') parts.push(this.finish === 'length' ? 'cut at the most tokens' : this.finish);
    this.node.meta.replaceChildren(parts.join(' · '));
    if (id) this.node.meta.append(parts.length ? ' · ' : '', el('button', { type: 'button', class: 'link', onclick: () => inspect(id) }, 'inspect'));
  }
  end(id, error) {
    this.node.root.classList.remove('running');
    this.tell(id);
    if (error) this.node.meta.prepend(el('span', { class: 'error', role: 'alert' }, error, ' '));
  }
}

async function ask(text) {
  let options;
  try {
    options = fields();
  } catch (err) {
    byId('sampling').open = true;
    prompt.value = text;
    turn('assistant', 'Not sent', '').meta.append(el('span', { class: 'error', role: 'alert' }, err.message));
    toEnd();
    return;
  }
  talk.querySelector('.empty')?.remove();
  turn('user', 'You', text);
  const mine = turns; // "New chat" begins others
  mine.push({ role: 'user', content: text });
  const many = (options.n || 1) > 1;
  const answers = Array.from({ length: options.n || 1 }, (_, i) => new Answer(i, many));
  toEnd();
  running = new AbortController();
  button();
  let id = null;
  let error = '';
  try {
    const [path, content] = body(text, options);
    const response = await call(path, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(content), signal: running.signal });
    if (response.status === 401) needKey();
    if (!response.ok) throw new Error(await failure(response));
    await events(response.body, (data) => {
      if (data === '[DONE]') return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Error(chunk.error.message);
      id = chunk.id;
      const follow = atEnd();
      for (const choice of chunk.choices) answers[choice.index].add(chunk, choice);
      if (follow) toEnd();
    });
  } catch (err) {
    if (running.signal.aborted) answers.forEach((a) => (a.finish ||= 'stopped'));
    else error = err instanceof TypeError ? 'The connection was lost.' : err.message;
  }
  const follow = atEnd();
  answers.forEach((a) => a.end(id, error));
  if (answers[0].content) mine.push({ role: 'assistant', content: answers[0].content });
  else mine.pop(); // it can be asked again
  if (follow) toEnd();
  running = null;
  button();
}

function button() {
  send.textContent = running ? 'Stop' : 'Send';
  send.classList.toggle('primary', !running);
}

form.addEventListener('submit', (e) => {
  e.preventDefault();
  if (running) {
    running.abort();
    return;
  }
  const text = prompt.value.trim();
  if (!text || send.disabled) return;
  prompt.value = '';
  ask(text);
});
prompt.addEventListener('keydown', (e) => {
  if (e.key === 'Enter' && !e.shiftKey && !e.isComposing) {
    e.preventDefault();
    if (!running) form.requestSubmit();
  } else if (e.key === 'Escape' && running) {
    running.abort();
  }
});
byId('clear').addEventListener('click', () => {
  running?.abort();
  turns = [];
  greet();
  prompt.focus();
});

function greet() {
  const info = state.info;
  talk.replaceChildren(
    el('p', { class: 'empty' }, !info || info.chat ? 'Ask something, and watch the blocks fill. A second question on the same conversation finds its beginning in the cache.' : info.text ? 'This model has no chat template: what you write is continued as it is.' : 'This model has no tokenizer: only token ids can be sent, by the API.'),
  );
}

// defaults shows what an empty field means.
async function defaults() {
  try {
    const given = (await (await call('server_info')).json()).request_defaults || {};
    for (const input of byId('sampling').querySelectorAll('input[type=number]')) {
      const value = given[input.name];
      if (!value) continue;
      // "chat: as many as fit; completions: 16" is long for a field
      input.placeholder = value.match(state.info?.chat ? /chat: ([^;]+)/ : /completions: (.+)/)?.[1] || value;
      if (input.placeholder !== value) input.title = value;
    }
  } catch {
    // the fields stay without
  }
}

let known = null;
onFrame(() => {
  if (known === state.info?.model) return;
  known = state.info.model;
  byId('system-field').hidden = !state.info.chat;
  send.disabled = prompt.disabled = !state.info.text;
  if (!turns.length) greet();
  defaults();
});
greet();
