// Passkeys (WebAuthn). Where the browser or the relay has none, nothing on the pages tells of them.
import { ask } from './api.js';

const browser = typeof PublicKeyCredential === 'function' && typeof PublicKeyCredential.parseCreationOptionsFromJSON === 'function';

let offers;

// offered tells whether browser and relay both can.
export async function offered() {
  if (!browser) return false;
  offers ??= fetch('/account/offers.json', { credentials: 'omit' }).then((a) => a.json()).catch(() => ({}));
  return (await offers).passkeys === true;
}

class Refused extends Error {
  constructor(cause) {
    super('no passkey', { cause });
    this.shown = {
      NotAllowedError: 'No passkey was used: it was cancelled, took too long, or there is none for this address.',
      InvalidStateError: 'This device has a passkey for you already.',
      SecurityError: 'Passkeys do not work under this address. Call the relay by its name.',
    }[cause.name] || 'The browser could not use a passkey.';
  }
}

async function get(begin) {
  const { ceremony, options } = await ask('POST', begin, {});
  try {
    const credential = await navigator.credentials.get({ publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(options) });
    return { ceremony, credential: credential.toJSON() };
  } catch (e) {
    throw new Refused(e);
  }
}

export async function signIn(workspace) {
  return ask('POST', '/sign-in/passkey', { ...(await get('/sign-in/passkey/begin')), ...(workspace ? { workspace } : {}), cookie: true });
}

export async function confirm() {
  return ask('POST', '/account/confirm', await get('/account/confirm/passkey/begin'));
}

export async function add(label) {
  const { ceremony, options } = await ask('POST', '/account/passkeys/begin', {});
  let credential;
  try {
    credential = await navigator.credentials.create({ publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(options) });
  } catch (e) {
    throw new Refused(e);
  }
  return ask('POST', '/account/passkeys', { ceremony, label, credential: credential.toJSON() });
}
