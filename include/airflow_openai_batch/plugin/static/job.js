// One job: what it came to, its shards, and what can be done about it.

import { apiUrl, paceOfJobs, post, usePoll } from "./api.js";
import { CancelDialog } from "./dialog.js";
import { count, duration, money, moment, plural } from "./format.js";
import { Cost, Tokens } from "./jobs.js";
import { Age, AirflowLink, Badge, CopyButton, ErrorNotice, Loading, reason, RequestBar } from "./parts.js";
import { identify } from "./place.js";
import { Shards } from "./shards.js";

const { createElement: h, useEffect, useRef, useState } = globalThis.React;

/**
 * @param identity dag_id, run_id, task_id, map_index.
 * @param initial the job as a list showed it just now.
 * @param task the task instance whose tab this is, if it is one's.
 * @param onClose none where there is nothing to go back to.
 */
export function Job({ identity, initial, task, place, go, onClose }) {
  const { data, error, at, reload } = usePoll(apiUrl("jobs", { ...identity, limit: 1 }), paceOfJobs);
  const job = data ? data.jobs[0] : initial;
  const title = useRef(null);
  useEffect(() => {
    if (onClose) title.current?.focus();
  }, []);
  useEscape(onClose);
  return h(
    "article",
    { "aria-labelledby": "oab-job" },
    onClose && h("button", { type: "button", className: "oab-button", onClick: onClose }, "← All jobs"),
    h(
      "div",
      { className: "oab-head" },
      h(
        "h2",
        { id: "oab-job", ref: title, tabIndex: -1 },
        identity.dag_id,
        h("div", { className: "oab-small oab-break" }, identity.run_id),
      ),
      job?.created_at ? h(Badge, { state: job.state }) : null,
    ),
    h(ErrorNotice, { error, at }),
    job ? h(JobBody, { job, task, place, go, reload }) : !error && h(data ? Gone : Loading, { what: "the job" }),
  );
}

const Gone = () => h("p", { className: "oab-muted" }, "There is no such job (any more).");

function useEscape(onClose) {
  useEffect(() => {
    if (!onClose) return undefined;
    function close(event) {
      const inField = event.target.closest?.("input, select, textarea, dialog, [role=dialog], [role=menu]");
      if (event.key === "Escape" && !inField && !event.defaultPrevented) onClose();
    }
    addEventListener("keydown", close);
    return () => removeEventListener("keydown", close);
  });
}

function JobBody({ job, task, place, go, reload }) {
  const [cancelling, setCancelling] = useState(null);
  const [said, say] = useState("");
  async function cancel() {
    await post("cancel", { ...identify(job), batch_id: cancelling.batch_id });
    say(`Batch ${cancelling.batch_id} of shard ${cancelling.shard} is being cancelled.`);
    setCancelling(null);
    reload();
  }
  if (!job.loaded) return h(Loading, { what: "the job directory" });
  const pace = paceOfJobs({ jobs: [job] });
  return h(
    globalThis.React.Fragment,
    null,
    h(Links, { job }),
    job.error ? h("p", { className: "oab-notice oab-notice-error", role: "alert" }, job.error) : null,
    job.notices.map((text) => h("p", { key: text, className: "oab-notice" }, text)),
    job.created_at ? h(Figures, { job }) : null,
    h("p", { role: "status", className: said ? "oab-notice" : "oab-hidden" }, said),
    job.created_at ? h(Shards, { job, task, place, go, pace, onCancel: setCancelling }) : null,
    cancelling && h(CancelDialog, { shard: cancelling, onConfirm: cancel, onClose: () => setCancelling(null) }),
  );
}

function Links({ job }) {
  const failed = apiUrl("failed.jsonl", identify(job));
  return h(
    "div",
    { className: "oab-toolbar" },
    h(AirflowLink, { to: job.links.run }, `Run (${job.run_state})`),
    h(AirflowLink, { to: job.links.task }, `Task ${job.task_id}`),
    h(
      "span",
      { className: "oab-uri" },
      h("code", null, job.uri),
      " ",
      h(CopyButton, { text: job.uri, label: "job directory" }),
    ),
    job.has_failed_rows && h("a", { className: "oab-button", href: failed, download: "" }, "Download failed.jsonl"),
  );
}

/** Half of them no longer than the first, 19 of 20 no longer than the second. */
function Usual({ usual }) {
  const size = usual.up_to ? ` of up to ${count(usual.up_to)} requests` : "";
  const title = `Median, and what 19 of 20 stay within: ${plural(usual.batches, "batch", "batches")} of ${usual.model}${size}`;
  return h("span", { title }, `${duration(usual.median_s)}, 19 of 20 within ${duration(usual.p95_s)}`);
}

function Figures({ job }) {
  const saving = job.saving_usd === null ? null : `${money(job.saving_usd)} less than in real time`;
  const figures = [
    ["Tokens in flight", h(Tokens, { tokens: job.tokens_in_flight })],
    ["Cost so far", h("span", { title: saving }, h(Cost, { job }))],
    ["Age", h(Age, { seconds: job.age_s, since: job.created_at })],
    ["To go", duration(job.eta_s)],
    ["Such batches take", job.usual && h(Usual, { usual: job.usual })],
    ["Waits for", reason(job.waits_for)],
    ["Rejected lines", job.requests.rejected ? count(job.requests.rejected) : null],
    ["Report", job.reported ? "written" : "not written yet"],
    ["Run ended", job.run_ended_at && moment(job.run_ended_at)],
  ];
  return h(
    "div",
    { className: "oab-figures" },
    h(RequestBar, { label: `Progress of ${job.dag_id}, ${job.run_id}`, requests: job.requests }),
    h(
      "dl",
      null,
      figures
        .filter(([, value]) => value)
        .map(([name, value]) => h("div", { key: name }, h("dt", null, name), h("dd", null, value))),
    ),
  );
}
