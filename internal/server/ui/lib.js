// What the views share: elements without markup, numbers as text, colours, keys.

// el makes an element; children are nodes or text.
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === 'class') node.className = value;
    else if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (name in node && name !== 'role' && !name.startsWith('aria')) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((c) => c !== undefined && c !== null));
  return node;
}

export const byId = (id) => document.getElementById(id);

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });

export const count = (n) => whole.format(n);
export const percent = (part, all) => (all > 0 ? `${Math.round((100 * part) / all)} %` : '–');

export function rate(n) {
  return n >= 1000 ? whole.format(n) : n >= 100 ? n.toFixed(0) : n.toFixed(1);
}

export function duration(ms) {
  if (ms < 1) return `${Math.round(ms * 1000)} µs`;
  if (ms < 10) return `${ms.toFixed(2)} ms`;
  if (ms < 1000) return `${ms.toFixed(ms < 100 ? 1 : 0)} ms`;
  if (ms < 120e3) return `${(ms / 1000).toFixed(ms < 10e3 ? 2 : 1)} s`;
  const minutes = ms / 60e3;
  return minutes < 120 ? `${Math.round(minutes)} min` : `${Math.round(minutes / 60)} h`;
}

export function bytes(n) {
  let unit = 0;
  while (n >= 1024 && unit < 4) {
    n /= 1024;
    unit++;
  }
  return `${n >= 100 || unit === 0 ? Math.round(n) : n.toFixed(1)} ${['B', 'KiB', 'MiB', 'GiB', 'TiB'][unit]}`;
}

export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

const dark = matchMedia('(prefers-color-scheme: dark)');

// colour is a sequence's own: neighbours in number are far apart in hue.
export function colour(seq) {
  const hue = (seq * 137.508 + 112) % 360;
  return `oklch(${dark.matches ? 0.74 : 0.66} 0.15 ${hue})`; // equally bright and strong, whatever the hue
}

// theme is a custom property of the style sheet.
export function theme(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// hint says how to choose something in a drawing.
export const hint = (what) => (matchMedia('(pointer: coarse)').matches ? `Touch ${what}.` : `Point at ${what}, or focus the drawing and use the arrow keys.`);

export function onTheme(f) {
  dark.addEventListener('change', f);
}

// fit makes a canvas as sharp as the screen and returns its context, in CSS pixels.
export function fit(canvas, width, height) {
  const ratio = devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext('2d');
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}

// The API key lives as long as the tab.
const keyName = 'pagoda-api-key';
export const key = {
  get: () => sessionStorage.getItem(keyName) || '',
  set: (value) => (value ? sessionStorage.setItem(keyName, value) : sessionStorage.removeItem(keyName)),
};

// root is where the server's paths begin; a proxy may have put something before.
const root = new URL('.', location.href.replace(/\/ui\/?$/, '/ui'));

// call fetches a path of this server with the key.
export function call(path, options = {}) {
  const headers = { ...options.headers };
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
  return fetch(new URL(path, root), { ...options, headers, credentials: 'same-origin' });
}

// failure is what an answer that is no success says.
export async function failure(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `the server answers ${response.status}`;
  }
}

// events reads a body of server-sent events, and calls f with each one's data.
export async function events(body, f) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    buffer += value;
    const parts = buffer.split('\n\n');
    buffer = parts.pop();
    for (const part of parts) if (part.startsWith('data: ')) f(part.slice(6));
  }
}
