// A first password, or a new one, by a one-time code that came as a link.
import { ask } from './api.js';
import { el, field, form, fragment, newPassword, show, username } from './dom.js';

const given = fragment();
const code = (given.get('code') || '').trim();
const known = Boolean(given.get('user') && given.get('workspace'));

const workspace = field('Workspace', { name: 'workspace', autocomplete: 'organization', autocapitalize: 'none', spellcheck: 'false', required: true, readonly: known, value: given.get('workspace') || 'default' });
const user = field('User name', { name: 'username', ...username, readonly: known, value: given.get('user') || '' });
const oneTime = field('One-time code', { name: 'code', autocomplete: 'off', autocapitalize: 'none', spellcheck: 'false', required: true }, 'It begins with fli_.');
const first = field('New password', { name: 'new-password', ...newPassword }, 'Long is better than odd: several words with blanks between them are good. The relay says when it wants more.');
const second = field('New password again', { name: 'new-password-again', ...newPassword });
(known && code ? first : user).input.setAttribute('data-first', '');

const f = form([workspace, user, !code && oneTime, first, second].filter(Boolean), 'Set the password', async () => {
  if (first.value !== second.value) {
    f.errors.textContent = 'The two passwords are not the same.';
    second.input.focus();
    return;
  }
  const who = { workspace: workspace.value.trim(), user: user.value };
  await ask('POST', '/sign-in/first', { ...who, code: code || oneTime.value.trim(), password: first.value });
  try {
    await ask('POST', '/sign-in', { ...who, password: first.value, cookie: true });
  } catch { // a second factor that is there stays: its code is asked for there
    location.replace(`/account/#${new URLSearchParams({ ...who, said: 'set' })}`);
    return;
  }
  location.replace('/account/');
});

show('Choose your password',
  el('p', {}, code ? 'You followed a link that counts once. Choose a password, and you are signed in.' : 'With the one-time code that somebody gave you, choose a password.'),
  el('section', { class: 'narrow' }, f));
