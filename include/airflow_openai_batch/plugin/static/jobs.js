// The list of jobs, newest first.

import { apiUrl, paceOfJobs, usePoll } from "./api.js";
import { count, duration, money, moment, NOTHING, short } from "./format.js";
import { Age, AirflowLink, Badge, Cell, Empty, ErrorNotice, Loading, Pager, RequestBar, Table, Waits } from "./parts.js";
import { ShardCounts } from "./shards.js";
import { Queues } from "./queues.js";
import { toKey } from "./place.js";

const { createElement: h, useEffect, useId, useRef, useState } = globalThis.React;

const PAGE = 25;
const RUN_STATES = ["running", "success", "failed"];

/**
 * @param scope the DAG or run whose jobs are shown; empty for all.
 * @param place, go what the address says, and how to change it.
 * @param open opens a job; `opened` refers to the one that was open just now, whose link takes the focus.
 * @param only how a run's only job is shown: right away, without a list of one.
 */
export function Jobs({ scope, place, go, open, only, opened }) {
  const dag = scope.dag_id ?? place.get("dag") ?? "";
  const state = scope.run_id ? "" : (place.get("state") ?? "");
  const offset = Number(place.get("from")) || 0;
  const isOnly = ({ jobs, total }) => scope.run_id && total === 1 && jobs[0]?.loaded;
  const url = apiUrl("jobs", { ...scope, dag_id: dag, state, limit: PAGE, offset });
  const { data: answer, error, at, pending } = usePoll(url, (answer) => (isOnly(answer) ? 60 : paceOfJobs(answer)));
  const data = useLoaded(answer);
  if (data && isOnly(data)) return only(data.jobs[0]);

  const filtered = Boolean(state || (!scope.dag_id && dag));
  const filterable = !scope.run_id && (filtered || Boolean(data?.total));
  let body = error ? null : h(Loading, { what: "jobs" });
  if (data?.jobs.length) body = h(JobTable, { jobs: data.jobs, open, scope, opened });
  else if (data) body = h(NoJobs, { scope, filtered, go });
  return h(
    "div",
    { className: pending ? "oab-pending" : undefined },
    data && !scope.dag_id ? h(Queues, { queues: data.queues }) : null,
    h(
      "section",
      { "aria-labelledby": "oab-jobs" },
      h(
        "div",
        { className: "oab-head" },
        h("h2", { id: "oab-jobs" }, data?.total ? `Jobs (${count(data.total)})` : "Jobs"),
        filterable ? h(Filters, { state, dag: scope.dag_id ? null : dag, jobs: data?.jobs ?? [], go }) : null,
      ),
      h(ErrorNotice, { error, at }),
      body,
      data ? h(Pager, { offset, limit: PAGE, total: data.total, what: "jobs", onMove: (from) => go({ from }) }) : null,
    ),
  );
}

/** Another API server may not have read a job yet that the one before has told of. */
function useLoaded(answer) {
  const known = useRef(new Map());
  if (!answer) return answer;
  const jobs = answer.jobs.map((job) => (job.loaded ? job : (known.current.get(toKey(job)) ?? job)));
  known.current = new Map(jobs.filter((job) => job.loaded).map((job) => [toKey(job), job]));
  return { ...answer, jobs };
}

function Filters({ state, dag, jobs, go }) {
  const choose = (event) => go({ state: event.target.value, from: null });
  return h(
    "div",
    { className: "oab-filters", role: "search", "aria-label": "Filter jobs" },
    h(
      "label",
      null,
      "Run",
      h(
        "select",
        { value: state, onChange: choose },
        h("option", { value: "" }, "any"),
        RUN_STATES.map((name) => h("option", { key: name, value: name }, name)),
      ),
    ),
    dag === null ? null : h(DagFilter, { key: dag, dag, jobs, go }),
  );
}

function DagFilter({ dag, jobs, go }) {
  const [text, setText] = useState(dag);
  const list = useId();
  const apply = (value) => value !== dag && go({ dag: value, from: null });
  const known = [...new Set(jobs.map((job) => job.dag_id))].sort();
  function change(event) {
    setText(event.target.value);
    // A choice from the list, or an emptied field, needs no Enter.
    if (!event.target.value || known.includes(event.target.value)) apply(event.target.value);
  }
  function submit(event) {
    event.preventDefault();
    apply(text.trim());
  }
  return h(
    "form",
    { onSubmit: submit },
    h(
      "label",
      null,
      "DAG",
      h("input", {
        type: "search",
        value: text,
        list,
        placeholder: "all",
        onChange: change,
        onBlur: () => apply(text.trim()),
      }),
    ),
    h("datalist", { id: list }, known.map((name) => h("option", { key: name, value: name }))),
  );
}

function JobTable({ jobs, open, scope, opened }) {
  const columns = ["Job", "Progress", "Shards", "In flight", "Cost", "Age", "To go"];
  return h(Table, { columns }, jobs.map((job) => h(JobRow, { key: toKey(job), job, open, scope, opened })));
}

function JobRow({ job, open, scope, opened }) {
  const key = toKey(job);
  const link = useRef(null);
  useEffect(() => {
    if (!opened.current || toKey(opened.current) !== key) return;
    opened.current = null;
    link.current.focus();
  }, [key, opened]);
  function follow(event) {
    if (event.metaKey || event.ctrlKey || event.shiftKey) return; // a new tab or window
    event.preventDefault();
    event.stopPropagation();
    open(job);
  }
  const name = scope.dag_id ? job.run_id : job.dag_id;
  return h(
    "tr",
    { className: "oab-row", onClick: (event) => event.target.closest("a, button") || follow(event) },
    h(
      Cell,
      { name: "Job", className: "oab-name" },
      h("a", { ref: link, href: `?job=${encodeURIComponent(key)}`, onClick: follow }, name),
      scope.dag_id ? null : h("div", { className: "oab-small oab-break" }, job.run_id),
      h(
        "div",
        { className: "oab-small" },
        job.created_at ? h(Badge, { state: job.state }) : null,
        " ",
        h(AirflowLink, { to: job.links.run }, `run ${job.run_state}`),
        job.map_index >= 0 ? ` · ${job.task_id} [${job.map_index}]` : null,
      ),
    ),
    job.created_at ? h(JobCells, { job }) : h(UnreadCells, { job }),
  );
}

function JobCells({ job }) {
  const label = `Progress of ${job.dag_id}, ${job.run_id}`;
  return h(
    globalThis.React.Fragment,
    null,
    h(
      Cell,
      { name: "Progress", className: "oab-wide" },
      h(RequestBar, { label, requests: job.requests }),
      h(Waits, { text: job.waits_for }),
      job.error ? h("div", { className: "oab-problem" }, job.error) : null,
    ),
    h(Cell, { name: "Shards" }, h(ShardCounts, { shards: job.shards })),
    h(Cell, { name: "In flight", className: "oab-short" }, h(Tokens, { tokens: job.tokens_in_flight })),
    h(Cell, { name: "Cost" }, h(Cost, { job })),
    h(Cell, { name: "Age", className: "oab-short" }, h(Age, { seconds: job.age_s, since: job.created_at })),
    h(Cell, { name: "To go", className: "oab-short" }, duration(job.eta_s)),
  );
}

const UnreadCells = ({ job }) =>
  h(
    "td",
    { colSpan: 6 },
    job.error
      ? h("span", { className: "oab-problem" }, job.error)
      : h("span", { className: "oab-muted", title: moment(job.run_started_at) }, "Reading the job directory …"),
  );

export const Tokens = ({ tokens }) =>
  tokens ? h("span", { title: `${count(tokens)} tokens` }, `${short(tokens)} tokens`) : NOTHING;

export function Cost({ job }) {
  const saved = job.saving_usd > 0 && `${money(job.saving_usd)} saved`;
  const reserved = job.reserved_usd > 0 && `up to ${money(job.reserved_usd)} under way`;
  const details = [saved, reserved].filter(Boolean).join(", ");
  return h("span", null, money(job.cost_usd), details && h("div", { className: "oab-small" }, details));
}

function NoJobs({ scope, filtered, go }) {
  if (filtered) {
    const clear = () => go({ state: null, dag: null, from: null });
    return h(
      Empty,
      { title: "No job matches these filters." },
      h("button", { type: "button", className: "oab-button", onClick: clear }, "Show all jobs"),
    );
  }
  if (scope.run_id) {
    const hint = "A job appears here as soon as the run has split its input.";
    return h(Empty, { title: "No OpenAI job in this run yet." }, hint);
  }
  if (scope.dag_id) {
    const hint = "Trigger the DAG; its jobs appear here as soon as a run has split its input.";
    return h(Empty, { title: "No OpenAI job in this DAG yet." }, hint);
  }
  return h(
    Empty,
    { title: "No jobs yet." },
    "Trigger ",
    h(AirflowLink, { to: "/dags/openai_batch" }, "openai_batch"),
    " (or any DAG with the operators of this package): its job appears here as soon as the input is split.",
  );
}
