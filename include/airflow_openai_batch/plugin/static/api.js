// The page's own API: one call, and a hook that asks again for as long as someone looks.

const { useCallback, useEffect, useRef, useState } = globalThis.React;

const ROOT = new URL("../", import.meta.url);
const RETRY_FIRST_S = 5;
const RETRY_LAST_S = 60;

export class ApiError extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

export const apiUrl = (path, params = {}) => {
  const url = new URL(`api/${path}`, ROOT);
  for (const [name, value] of Object.entries(params)) {
    if (value !== undefined && value !== null && value !== "") url.searchParams.set(name, value);
  }
  return url.href;
};

/** The address of a page of Airflow's, whatever base path it runs under. */
export const airflowUrl = (path) => new URL(`../${path.replace(/^\//, "")}`, ROOT).href;

/** The JSON of an answer; an ApiError with the server's own sentence for anything but 2xx. */
export async function call(url, options = {}) {
  const answer = await fetch(url, { credentials: "same-origin", ...options });
  const isJson = (answer.headers.get("content-type") ?? "").includes("json");
  const body = isJson ? await answer.json() : null;
  if (answer.ok && isJson) return body;
  const detail = typeof body?.detail === "string" ? body.detail : answer.statusText;
  throw new ApiError(answer.status, detail || `The server answered ${answer.status}.`);
}

export const post = (path, body) =>
  call(apiUrl(path), {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });

// Airflow may mount the component anew at any time; what was there is shown at once then.
const seen = new Map();

function remember(url, data) {
  seen.delete(url);
  seen.set(url, data);
  if (seen.size > 50) seen.delete(seen.keys().next().value);
}

/**
 * Ask again and again, not while the tab is hidden and not after a 401, which only logging in can mend.
 *
 * Where the address changes, the former data stays until the new one is there (`pending`).
 * A failure leaves what was known of this address in place, and is told in `error`.
 *
 * @param pace seconds until the next question, given the data.
 */
export function usePoll(url, pace) {
  const [state, setState] = useState({ url, data: seen.get(url), error: null, at: null });
  const paceRef = useRef(pace);
  const pollRef = useRef(() => {});
  paceRef.current = pace;

  useEffect(() => {
    let timer;
    let failures = 0;
    let asking = null;

    async function poll() {
      clearTimeout(timer);
      asking?.abort();
      if (document.hidden) return;
      const asked = (asking = new AbortController());
      let wait;
      try {
        const data = await call(url, { signal: asked.signal });
        if (asked.signal.aborted) return;
        failures = 0;
        remember(url, data);
        setState({ url, data, error: null, at: new Date() });
        wait = paceRef.current(data);
      } catch (error) {
        if (asked.signal.aborted) return;
        setState((former) => (former.url === url ? { ...former, error } : { url, data: seen.get(url), error }));
        if (error.status === 401) return;
        wait = Math.min(RETRY_LAST_S, RETRY_FIRST_S * 2 ** failures++);
      }
      timer = setTimeout(poll, wait * 1000);
    }

    const onVisibility = () => !document.hidden && poll();
    document.addEventListener("visibilitychange", onVisibility);
    pollRef.current = poll;
    poll();
    return () => {
      document.removeEventListener("visibilitychange", onVisibility);
      clearTimeout(timer);
      asking?.abort();
    };
  }, [url]);

  const reload = useCallback(() => pollRef.current(), []);
  const known = state.url === url ? state.data : (seen.get(url) ?? state.data);
  return { data: known, error: state.error, at: state.at, pending: state.url !== url && !seen.has(url), reload };
}

/** How often to ask: at once while something is being read, seldom when nothing goes on. */
export function paceOfJobs({ jobs }) {
  if (jobs.some((job) => !job.loaded)) return 1;
  return jobs.some((job) => job.state === "running" || job.state === "planned") ? 5 : 30;
}
