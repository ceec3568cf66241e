// What the pages are built with. Text becomes text nodes: nothing here takes HTML.

export const main = document.getElementById('main');

// el makes an element. Functions among the attributes are listeners (onclick); true is an attribute without a value.
export function el(name, attributes = {}, ...children) {
  const e = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === 'function') e.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== null && value !== false) e.setAttribute(key, value === true ? '' : value);
  }
  e.append(...children.flat().filter((c) => c !== undefined && c !== null && c !== false));
  return e;
}

let ids = 0;

// field is a label with its input.
export function field(label, attributes = {}, hint = '') {
  const id = `f${++ids}`;
  const input = el('input', { id, type: 'text', ...attributes, 'aria-describedby': hint ? `${id}-hint` : undefined });
  const box = el('div', {}, el('label', { for: id }, label), input, hint && el('p', { class: 'soft', id: `${id}-hint` }, hint));
  return { box, input, get value() { return input.value; } };
}

export const username = { autocomplete: 'username', autocapitalize: 'none', spellcheck: 'false', required: true };
export const presentPassword = { type: 'password', autocomplete: 'current-password', required: true };
export const newPassword = { type: 'password', autocomplete: 'new-password', required: true };
export const oneTimeCode = { autocomplete: 'one-time-code', inputmode: 'text', autocapitalize: 'none', spellcheck: 'false', required: true };

// errorBox is read out when something is put into it.
export function errorBox() {
  return el('p', { class: 'error', role: 'alert', 'aria-live': 'assertive' });
}

// form has fields, a box for errors and buttons; submit does its act, once at a time.
export function form(fields, label, act, more = []) {
  const errors = errorBox();
  const button = el('button', { class: 'main', type: 'submit' }, label);
  const f = el('form', { method: 'post', novalidate: true }, ...fields.map((x) => x.box || x), errors, el('div', { class: 'actions' }, button, ...more));
  f.addEventListener('submit', (event) => {
    event.preventDefault();
    const empty = [...f.elements].find((e) => e.required && !e.hidden && !e.closest('[hidden]') && e.value === '');
    if (empty) {
      errors.textContent = `${f.querySelector(`label[for="${empty.id}"]`).textContent} is missing.`;
      empty.setAttribute('aria-invalid', 'true');
      empty.focus();
      return;
    }
    run([...f.querySelectorAll('button')], errors, act);
  });
  f.addEventListener('input', (event) => event.target.removeAttribute('aria-invalid'));
  f.errors = errors;
  return f;
}

// run does an act with its buttons disabled, and says what went wrong.
export async function run(buttons, errors, act) {
  const before = document.activeElement;
  errors.textContent = '';
  errors.classList.remove('mild');
  for (const b of buttons) b.disabled = true;
  try {
    await act();
  } catch (e) {
    if (!e.silent) errors.textContent = e.shown || 'Something went wrong in this page. Load it again.';
    if (!e.shown && !e.silent) console.error(e);
  } finally {
    for (const b of buttons) b.disabled = false;
    // A button that is disabled loses the focus; who uses the keyboard must not begin at the top again.
    if (document.activeElement === document.body && before && before.isConnected) before.focus();
  }
}

// show replaces what is on the page, and tells those who listen to it.
export function show(title, ...children) {
  main.replaceChildren(el('h1', { tabindex: '-1' }, title), ...children.filter(Boolean));
  const first = main.querySelector('[data-first]');
  (first || main.querySelector('h1')).focus();
}

export function time(text) {
  const d = new Date(text);
  return Number.isNaN(d.getTime()) ? '' : d.toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'short' });
}

// fragment takes what stands behind # out of the address bar, so that it stays in no history, and gives it.
export function fragment() {
  const given = new URLSearchParams(location.hash.slice(1));
  if (location.hash) history.replaceState(null, '', location.pathname);
  return given;
}
