// The form to sign in with. It is put into the page by whoever wants a session.
import { ask } from './api.js';
import { el, errorBox, field, form, oneTimeCode, presentPassword, run, show, username } from './dom.js';
import * as passkey from './passkey.js';

// signIn shows the form and waits until somebody is signed in.
export async function signIn(given, said = '') {
  const passkeys = await passkey.offered();
  return new Promise((done) => {
    const workspace = field('Workspace', { name: 'workspace', autocomplete: 'organization', autocapitalize: 'none', spellcheck: 'false', required: true, value: given.get('workspace') || 'default' });
    const user = field('User name', { name: 'username', ...username, autocomplete: passkeys ? 'username webauthn' : 'username', value: given.get('user') || '' });
    const password = field('Password', { name: 'password', ...presentPassword });
    const code = field('Code', { name: 'code', ...oneTimeCode }, 'The code that your authenticator app shows, or a recovery code.');
    code.box.hidden = true;
    (user.value ? password : user).input.setAttribute('data-first', '');
    const byPassword = form([workspace, user, password, code], 'Sign in', async () => {
      const body = { workspace: workspace.value.trim(), user: user.value, password: password.value, cookie: true };
      if (!code.box.hidden && code.value) body.code = code.value;
      let session;
      try {
        session = await ask('POST', '/sign-in', body);
      } catch (e) {
        if (e.rule !== 'sign_in.second_factor') throw e;
        code.box.hidden = false;
        byPassword.errors.classList.add('mild'); // it is no error
        byPassword.errors.textContent = 'Your password is right. Now the code of your second factor.';
        code.input.focus();
        return;
      }
      password.input.value = code.input.value = '';
      done(session);
    });
    const errors = errorBox();
    const button = el('button', { type: 'button', onclick: () => run([button], errors, async () => done(await passkey.signIn(workspace.value.trim()))) }, 'Sign in with a passkey');
    show('Sign in', said && el('p', { class: 'done', role: 'status' }, said),
      el('section', { class: 'narrow' }, byPassword),
      passkeys && el('section', { class: 'narrow' }, el('p', {}, 'Without a password, where you have set one up:'), errors, el('div', { class: 'actions' }, button)));
  });
}
