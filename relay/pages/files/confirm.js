// Dangerous acts want a fresh proof. Whoever is refused for it is asked, and the act is done again.
import { ask } from './api.js';
import { el, errorBox, field, form, oneTimeCode, presentPassword, run } from './dom.js';
import * as passkey from './passkey.js';

class Cancelled extends Error {
  silent = true;
}

export async function fresh(act) {
  try {
    return await act();
  } catch (e) {
    if (e.rule !== 'sign_in.step_up') throw e;
  }
  await prove();
  return act();
}

async function prove() {
  const account = await ask('GET', '/account');
  const passkeys = (await passkey.offered()) && (await ask('GET', '/account/passkeys')).items.length > 0;
  const dialog = el('dialog', { 'aria-labelledby': 'prove' });
  await new Promise((done, fail) => {
    let proven = false;
    const ok = () => { proven = true; dialog.close(); };
    const cancel = el('button', { type: 'button', onclick: () => dialog.close() }, 'Cancel');
    const factor = Boolean(account.second_factor_since);
    const proof = factor ? field('Code', { name: 'code', ...oneTimeCode }, 'The code that your authenticator app shows, or a recovery code.') : field('Password', { name: 'password', ...presentPassword });
    const hidden = factor ? [] : [el('input', { type: 'text', name: 'username', autocomplete: 'username', value: account.user, hidden: true, readonly: true })];
    const f = form([...hidden, proof], 'Confirm', async () => {
      await ask('POST', '/account/confirm', factor ? { code: proof.value } : { password: proof.value });
      ok();
    }, [cancel]);
    const errors = errorBox();
    const button = el('button', { type: 'button', onclick: () => run([button], errors, async () => { await passkey.confirm(); ok(); }) }, 'Use a passkey');
    dialog.append(el('h2', { id: 'prove' }, 'Prove that it is you'), el('p', {}, 'This wants a fresh proof, for it decides who gets in.'), f, ...(passkeys ? [errors, el('div', { class: 'actions' }, button)] : []));
    dialog.addEventListener('close', () => {
      dialog.remove();
      if (proven) done();
      else fail(new Cancelled());
    });
    document.body.append(dialog);
    dialog.showModal();
    proof.input.focus();
  });
}
