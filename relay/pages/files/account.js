// The account page: who is signed in, and with what they sign in.
import { ask, list } from './api.js';
import { fresh } from './confirm.js';
import { el, errorBox, field, form, fragment, main, newPassword, oneTimeCode, presentPassword, run, show, time } from './dom.js';
import * as passkey from './passkey.js';
import { signIn } from './signin.js';

let given = fragment();

const lacking = {
  code: 'This session began without your second factor. Sign out, and sign in again with a code.',
  second_factor: 'The workspace demands a second factor. Until you have one you can do nothing but look after this account.',
  password: 'Your password has expired. Until you change it you can do nothing but look after this account.',
  passkey: 'This session wants a passkey. Until it has shown one you can do nothing but look after this account.',
};

// act is a button with its errors; what it does is done anew after a proof when one is wanted. With again, it is pressed twice.
function act(label, kind, errors, what, again = '') {
  const b = el('button', { type: 'button', class: kind, onclick: () => {
    if (again && b.textContent !== again) b.textContent = again;
    else run([b], errors, () => guarded(what));
  } }, label);
  return b;
}

// guarded notices that the session has ended meanwhile.
async function guarded(what) {
  try {
    return await fresh(what);
  } catch (e) {
    if (e.status !== 401) throw e;
    account('The session has ended.');
    return null;
  }
}

async function account(said = '') {
  let me;
  try {
    me = await ask('GET', '/account');
  } catch (e) {
    if (e.status !== 401) {
      show('Your account', el('p', { class: 'notice', role: 'alert' }, e.shown || String(e)), el('div', { class: 'actions' }, el('button', { type: 'button', onclick: () => account() }, 'Try again')));
      return;
    }
    await signIn(given, said);
    given = new URLSearchParams();
    account();
    return;
  }
  const status = el('p', { class: 'done', role: 'status', 'aria-live': 'polite' });
  show('Your account', status, me.needs && el('p', { class: 'notice' }, lacking[me.needs] || `The session lacks: ${me.needs}.`),
    me.needs === 'passkey' && me.passkeys > 0 && (await passkey.offered()) && shown(),
    who(me), password(me), factor(me), await passkeys(), await sessions());
  status.textContent = said; // after it is there, so that it is read out
}

// shown is the way out of a session that wants a passkey which the person has.
function shown() {
  const errors = errorBox();
  return el('section', { 'aria-label': 'Show a passkey' }, errors, el('div', { class: 'actions' }, act('Use a passkey', '', errors, async () => {
    await passkey.confirm();
    account('The session has shown a passkey.');
  })));
}

function who(me) {
  const errors = errorBox();
  const rows = [['User', me.user], ['Workspace', me.workspace], ['Person', me.person], ['Password set', time(me.password_set_at)]];
  return el('section', { 'aria-label': 'Who you are' },
    el('dl', {}, ...rows.flatMap(([name, value]) => [el('dt', {}, name), el('dd', {}, value)])),
    errors,
    el('div', { class: 'actions' }, act('Sign out', '', errors, async () => {
      await ask('POST', '/sign-out');
      account('You are signed out.');
    })));
}

function password(me) {
  const old = field('Present password', { name: 'password', ...presentPassword });
  const first = field('New password', { name: 'new-password', ...newPassword }, 'Long is better than odd. Your other sessions end.');
  const second = field('New password again', { name: 'new-password-again', ...newPassword });
  const name = el('input', { type: 'text', name: 'username', autocomplete: 'username', value: me.user, hidden: true, readonly: true });
  const f = form([name, old, first, second], 'Change the password', async () => {
    if (first.value !== second.value) {
      f.errors.textContent = 'The two passwords are not the same.';
      second.input.focus();
      return;
    }
    await guarded(async () => {
      await ask('POST', '/account/password', { password: old.value, new_password: first.value });
      account('The password is changed, and your other sessions have ended.');
    });
  });
  return el('section', { 'aria-labelledby': 'password' }, el('h2', { id: 'password' }, 'Password'), f);
}

function factor(me) {
  const box = el('section', { 'aria-labelledby': 'factor' });
  const title = el('h2', { id: 'factor', tabindex: '-1' }, 'Second factor');
  const errors = errorBox();
  const begin = act(me.second_factor_since ? 'Set up another app in its place' : 'Add an authenticator app', me.second_factor_since ? '' : 'main', errors, async () => {
    const n = await ask('POST', '/account/second-factor');
    const code = field('Code that the app shows', { name: 'code', ...oneTimeCode });
    const prove = form([code], 'Put it in force', () => guarded(async () => {
      const { codes } = await ask('PUT', '/account/second-factor', { code: code.value.trim() });
      recovery(box, title, codes, 'The second factor is in force, and your other sessions have ended.');
    }), [el('button', { type: 'button', onclick: () => account() }, 'Cancel')]);
    box.replaceChildren(title, el('p', {}, 'Scan this with an authenticator app, or type the secret into it.'), n.qr && qr(n.qr), el('p', {}, 'Secret: ', el('code', { id: 'secret' }, n.secret)), prove);
    code.input.focus();
  });
  if (!me.second_factor_since) {
    box.append(title, el('p', {}, 'None. With one, nobody gets in with your password alone.'), errors, el('div', { class: 'actions' }, begin));
    return box;
  }
  box.append(title, el('p', {}, `An authenticator app, since ${time(me.second_factor_since)}. Recovery codes left: ${me.recovery_codes}.`), errors,
    el('div', { class: 'actions' },
      act('New recovery codes', '', errors, async () => {
        const { codes } = await ask('POST', '/account/recovery-codes');
        recovery(box, title, codes, 'These replace the codes of before.');
      }),
      begin,
      act('Remove', 'bad', errors, async () => {
        await ask('DELETE', '/account/second-factor');
        account('The second factor is removed, and your other sessions have ended.');
      }, 'Remove it now')));
  return box;
}

// recovery shows codes, this once.
function recovery(box, title, codes, said) {
  const note = el('p', { class: 'done', role: 'status', 'aria-live': 'polite' });
  const text = codes.join('\n');
  const copy = el('button', { type: 'button', onclick: async () => {
    try {
      await navigator.clipboard.writeText(text);
      note.textContent = 'Copied.';
    } catch {
      note.textContent = 'The browser does not let the page copy: mark the codes and copy them by hand.';
    }
  } }, 'Copy');
  box.replaceChildren(title, el('p', {}, `${said} Each recovery code counts once in place of a code, when the phone is lost. Keep them apart from it: they are not shown again.`),
    el('pre', { id: 'recovery', tabindex: '0', 'aria-label': 'Recovery codes' }, text), note,
    el('div', { class: 'actions' }, copy, el('button', { type: 'button', class: 'main', onclick: () => account() }, 'I have kept them')));
  title.focus();
}

// qr draws rows of 0 and 1, with the white around that ISO/IEC 18004 wants.
function qr(rows) {
  const ns = 'http://www.w3.org/2000/svg';
  const quiet = 4;
  const svg = document.createElementNS(ns, 'svg');
  const size = rows.length + 2 * quiet;
  for (const [name, value] of Object.entries({ class: 'qr', viewBox: `0 0 ${size} ${size}`, role: 'img', 'aria-label': 'QR code of the secret', 'shape-rendering': 'crispEdges' })) svg.setAttribute(name, value);
  const path = document.createElementNS(ns, 'path');
  path.setAttribute('fill', '#000');
  path.setAttribute('d', rows.map((row, y) => [...row].map((c, x) => (c === '1' ? `M${x + quiet} ${y + quiet}h1v1h-1z` : '')).join('')).join(''));
  svg.append(path);
  return svg;
}

async function passkeys() {
  if (!(await passkey.offered())) return null;
  const errors = errorBox();
  let items;
  try {
    items = await list('/account/passkeys');
  } catch (e) {
    return el('section', {}, el('h2', {}, 'Passkeys'), el('p', { class: 'notice' }, e.shown || String(e)));
  }
  const label = field('Name for a new passkey', { name: 'passkey-label', autocomplete: 'off', maxlength: '64', required: true, value: '' }, 'Such as the device that keeps it.');
  return el('section', { 'aria-labelledby': 'passkeys' }, el('h2', { id: 'passkeys' }, 'Passkeys'),
    el('p', {}, 'A passkey signs you in without a password, by a device or key that you hold.'),
    items.length > 0 && el('ul', { class: 'rows' }, ...items.map((p) => el('li', {},
      el('div', {}, el('strong', {}, p.label), el('div', { class: 'soft' }, `since ${time(p.created_at)}${p.last_used_at ? `, last used ${time(p.last_used_at)}` : ''}`)),
      act('Remove', 'bad', errors, async () => {
        await ask('DELETE', `/account/passkeys/${encodeURIComponent(p.id)}`);
        account('The passkey is removed.');
      }, 'Remove it now')))),
    errors,
    form([label], 'Add a passkey', () => guarded(async () => {
      await passkey.add(label.value.trim());
      account('The passkey is added.');
    })));
}

// program is what a program says of itself, in short where it is a browser.
function program(agent) {
  if (!agent.startsWith('Mozilla/')) return agent || 'a program that does not say its name';
  const name = /(Firefox|Edg|OPR|Chrome|Version)\/([0-9]+)/.exec(agent);
  const system = /Android|iPhone|iPad|Windows|Macintosh|Linux/.exec(agent);
  if (!name || !system) return agent;
  return `${{ Edg: 'Edge', OPR: 'Opera', Version: 'Safari' }[name[1]] || name[1]} ${name[2]} on ${{ Macintosh: 'macOS' }[system[0]] || system[0]}`;
}

async function sessions() {
  const errors = errorBox();
  let items;
  try {
    items = await list('/account/sessions');
  } catch (e) {
    return el('section', {}, el('h2', {}, 'Sessions'), el('p', { class: 'notice' }, e.shown || String(e)));
  }
  return el('section', { 'aria-labelledby': 'sessions' }, el('h2', { id: 'sessions' }, 'Sessions'),
    el('ul', { class: 'rows' }, ...items.map((s) => el('li', {},
      el('div', {}, el('strong', { title: s.agent }, program(s.agent || '')), s.current && ' (this one)',
        el('div', { class: 'soft' }, `workspace ${s.workspace}, from ${s.source || 'an unknown address'}, since ${time(s.created_at)}, last used ${time(s.last_used_at)}, ends ${time(s.ends_at)}`)),
      !s.current && act('End', 'bad', errors, async () => {
        await ask('DELETE', `/account/sessions/${encodeURIComponent(s.id)}`);
        account('The session has ended.');
      })))),
    errors,
    items.length > 1 && el('div', { class: 'actions' }, act('End all others', 'bad', errors, async () => {
      await ask('DELETE', '/account/sessions');
      account('Your other sessions have ended.');
    })));
}

main.setAttribute('aria-busy', 'true');
account(given.get('said') === 'set' ? 'The password is set. Sign in with it.' : '').finally(() => main.removeAttribute('aria-busy'));
