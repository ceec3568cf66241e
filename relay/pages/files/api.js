// The relay's public API, with the session in a cookie that no script can read.

export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || `status ${status}`);
    this.status = status;
    this.rule = body.rule || '';
    const text = this.message.charAt(0).toUpperCase() + this.message.slice(1);
    // Hints that name a command are for those who sit before one.
    const hint = body.hint && !body.hint.startsWith('fairlead ') ? `\n${body.hint.charAt(0).toUpperCase()}${body.hint.slice(1)}.` : '';
    const wait = body.retry_after_ms ? `\nIt is worth trying again in ${Math.ceil(body.retry_after_ms / 1000)} s.` : '';
    this.shown = `${text}.${hint}${wait}`;
  }
}

export async function ask(method, path, body) {
  const init = { method, credentials: 'same-origin', cache: 'no-store', redirect: 'error', headers: {} };
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers['Content-Type'] = 'application/json';
  }
  let answer;
  try {
    answer = await fetch(`/api/v1${path}`, init);
  } catch {
    throw new Problem(0, { detail: 'the relay does not answer', hint: 'look at your connection, then try again' });
  }
  if (answer.status === 204) return null;
  let value = {};
  try {
    value = await answer.json();
  } catch {
    if (answer.ok) throw new Problem(answer.status, { detail: 'the relay answered something that makes no sense' });
  }
  if (!answer.ok) throw new Problem(answer.status, value);
  return value;
}

// list gives all pages of a list.
export async function list(path) {
  const all = [];
  for (let cursor = ''; ;) {
    const page = await ask('GET', path + (cursor && `?cursor=${encodeURIComponent(cursor)}`));
    all.push(...page.items);
    if (!page.cursor) return all;
    cursor = page.cursor;
  }
}
