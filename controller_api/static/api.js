// The controller's interface: JSON by GET, and the event stream by fetch. A token travels in a header, never in a URL.

const KEY = "federation-token";
const SILENCE_MS = 60_000; // a stream that says nothing for so long is dead: the controller sends comments in between
const LONGEST_WAIT_MS = 15_000;

/** The controller wants another token. */
export class Refused extends Error {
  constructor(status) {
    super(`refused with ${status}`);
    this.status = status;
  }
}

export const token = {
  value: sessionStorage.getItem(KEY),
  set(value) {
    this.value = value;
    if (value) sessionStorage.setItem(KEY, value);
    else sessionStorage.removeItem(KEY);
  },
};

/** No answer, or one that is no success: it may go better later. */
export class Lost extends Error {}

/** A GET relative to the page; throws Refused for 401 and 403, Lost for all else that is not a success. */
async function get(path, headers = {}, signal = undefined) {
  if (token.value) headers.Authorization = `Bearer ${token.value}`;
  const answer = await fetch(path, { headers, signal, cache: "no-store", credentials: "same-origin" }).catch(
    (error) => {
      throw new Lost(`no answer to ${path}: ${error.message}`);
    },
  );
  if (answer.status === 401 || answer.status === 403) throw new Refused(answer.status);
  if (!answer.ok) throw new Lost(`${path} answered ${answer.status}`);
  return answer;
}

/** The JSON of `path`, and how far the controller's clock is ahead of this one's, in milliseconds. */
export async function getJson(path) {
  const answer = await get(path, { Accept: "application/json" }, AbortSignal.timeout(20_000));
  const date = Date.parse(answer.headers.get("date") ?? "");
  const value = await answer.json().catch((error) => {
    throw new Lost(`${path} broke off: ${error.message}`);
  });
  return { value, skew: Number.isNaN(date) ? 0 : date - Date.now() };
}

export async function getText(path) {
  return (await get(path, { Accept: "text/plain" }, AbortSignal.timeout(20_000))).text();
}

/** The messages of a text/event-stream body, as {id, event, data} (WHATWG HTML, section 9.2.6). */
export async function* readEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let message = { data: [] };
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split(/\r\n|\n|\r(?=[^])/); // a last \r may be half of \r\n: it waits
      rest = lines.pop();
      for (const line of lines) {
        if (line === "") {
          if (message.data.length) yield { ...message, data: message.data.join("\n") };
          message = { data: [] };
          continue;
        }
        const colon = line.indexOf(":");
        const field = colon < 0 ? line : line.slice(0, colon);
        const text = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
        if (field === "data") message.data.push(text);
        else if (field === "id" || field === "event") message[field] = text;
      }
      yield null; // something was heard: the stream lives
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** The federation's log, followed until `stop()`: a cut stream is taken up after the last event that was heard. */
export class EventStream {
  constructor({ onEvent, onLink, onRefused }) {
    this.last = "0"; // the whole log that the controller still holds
    this.handlers = { onEvent, onLink, onRefused };
    this.abort = null;
    this.up = false;
  }

  start() {
    if (this.abort) return;
    this.abort = new AbortController();
    this.follow(this.abort);
  }

  stop() {
    this.abort?.abort();
    this.abort = null;
    this.up = false;
  }

  async follow(abort) {
    let failures = 0;
    while (!abort.signal.aborted) {
      const heard = await this.once(abort.signal).catch((error) => {
        if (error instanceof Refused) {
          this.stop();
          this.handlers.onRefused(error);
        }
        return false;
      });
      if (abort.signal.aborted) return;
      failures = heard ? 0 : failures + 1;
      this.link(false);
      await new Promise((resolve) =>
        setTimeout(resolve, Math.min(LONGEST_WAIT_MS, 250 * 2 ** failures) * (0.5 + Math.random() / 2)),
      );
    }
  }

  link(up) {
    this.up = up;
    this.handlers.onLink(up);
  }

  /** One connection, to its end; true when anything was heard. */
  async once(signal) {
    const silence = new AbortController();
    let timer = 0;
    const alive = () => {
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), SILENCE_MS);
    };
    let heard = false;
    try {
      alive();
      const headers = { Accept: "text/event-stream", "Last-Event-ID": this.last };
      const answer = await get("v1/events", headers, AbortSignal.any([signal, silence.signal]));
      this.link(true);
      for await (const message of readEvents(answer.body)) {
        alive();
        heard = true;
        if (!message) continue;
        if (message.id) this.last = message.id;
        this.handlers.onEvent(JSON.parse(message.data));
      }
    } catch (error) {
      if (error instanceof Refused) throw error;
      if (!(error instanceof Lost || error.name === "AbortError" || error.message === "network error"))
        reportError(error);
    } finally {
      clearTimeout(timer);
    }
    return heard;
  }
}
