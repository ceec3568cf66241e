// The fairlead program on this machine asks for a session. Nothing is given before the button is pressed.
import { ask } from './api.js';
import { fresh } from './confirm.js';
import { el, errorBox, fragment, run, show } from './dom.js';
import { signIn } from './signin.js';

const given = fragment();
const port = /^[1-9][0-9]{0,4}$/.test(given.get('port') || '') ? Number(given.get('port')) : 0;
const state = given.get('state') || '';
const challenge = given.get('challenge') || '';
// The name is what the program says of its machine: letters, digits and what names are made of, and not much of it.
const host = (given.get('name') || '').replace(/[^\p{L}\p{N}._ -]/gu, '').trim().slice(0, 64) || 'a machine without a name';
const seconds = (name) => (/^[1-9][0-9]{1,8}$/.test(given.get(name) || '') ? { [name]: Number(given.get(name)) } : {});

// back leads to the program, which listens on this machine alone.
function back(answer) {
  show('Back to the terminal', el('p', {}, 'The program says there how it went. This page can be closed.'));
  location.replace(`http://127.0.0.1:${port}/?${new URLSearchParams({ ...answer, state })}`);
}

async function consent() {
  let account;
  try {
    account = await ask('GET', '/account');
  } catch (e) {
    if (e.status !== 401) {
      show('Sign in the fairlead program', el('p', { class: 'notice', role: 'alert' }, e.shown || String(e)));
      return;
    }
    await signIn(given, 'Sign in, and you are asked what the program gets.');
    consent();
    return;
  }
  const errors = errorBox();
  const buttons = [];
  const button = (label, kind, act) => {
    const b = el('button', { type: 'button', class: kind, onclick: () => run(buttons, errors, act) }, label);
    buttons.push(b);
    return b;
  };
  const wanted = given.get('user');
  const place = given.get('workspace') || '';
  show('Sign in the fairlead program?',
    el('section', {},
      el('p', {}, 'The fairlead program on ', el('strong', { class: 'host' }, host), ' asks to act as ', el('strong', {}, account.user), ' in workspace ', el('strong', {}, account.workspace), '.'),
      el('p', {}, 'It gets a session of its own and may do there whatever you may. That session ends when yours would at the latest, but signing out here does not end it: end it on your account page, or with ', el('code', {}, 'fairlead logout'), '.'),
      wanted && wanted.toLowerCase() !== account.user.toLowerCase() && el('p', { class: 'notice' }, `It was started for ${wanted}, and you are signed in as ${account.user}: it will not take this session.`),
      place && place !== account.workspace && !place.startsWith('ws_') && el('p', { class: 'notice' }, `It was started for workspace ${place}, and you are signed in to ${account.workspace}: it will not take this session.`),
      el('p', {}, el('strong', {}, 'If you did not start it just now, press Refuse.')),
      errors,
      el('div', { class: 'actions' },
        button('Refuse', '', async () => back({ error: 'access_denied' })),
        button('Allow', 'main', async () => {
          const { code } = await fresh(() => ask('POST', '/account/hand-over', { challenge, ...seconds('idle_seconds'), ...seconds('life_seconds') }));
          back({ code });
        }))),
    el('div', { class: 'actions' }, button('Use another account', '', async () => {
      await ask('POST', '/sign-out');
      consent();
    })));
}

if (port < 1 || port > 65535 || !/^[A-Za-z0-9_-]{16,128}$/.test(state) || !/^[A-Za-z0-9_-]{43}$/.test(challenge)) {
  show('Sign in the fairlead program', el('p', { class: 'notice', role: 'alert' }, 'This address is not whole, or was loaded a second time. Begin again in the terminal: fairlead login --browser'));
} else {
  consent();
}
