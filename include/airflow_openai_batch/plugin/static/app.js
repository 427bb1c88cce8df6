// The page "OpenAI batches", with the ids of whatever the tab belongs to. No build step: plain modules, and the React
// that Airflow brings.

import { History } from "./history.js";
import { Job } from "./job.js";
import { Jobs } from "./jobs.js";
import { fromKey, identify, toKey, usePlace } from "./place.js";

const { Component, createElement: h, useRef } = globalThis.React;

export const NAME = "OpenAI batches";

function Page({ dagId, runId, taskId, mapIndex }) {
  const [place, go] = usePlace();
  const opened = useRef(null);
  const scope = { dag_id: dagId, run_id: runId };
  const task = taskId && { task_id: taskId, map_index: Number(mapIndex ?? -1) };
  const key = place.get("job");
  const close = () => go({ job: null, shards: null, first: null });

  function open(job) {
    opened.current = job;
    go({ job: toKey(job), shards: null, first: null });
  }

  if (key) {
    const initial = opened.current && toKey(opened.current) === key ? opened.current : undefined;
    return h(Job, { key, identity: fromKey(key), initial, place, go, onClose: close });
  }
  const only = (job) => h(Job, { key: toKey(job), identity: identify(job), initial: job, place, go, task });
  return [
    dagId && !runId ? h(History, { key: "history", dagId }) : null,
    h(Jobs, { key: "jobs", scope, place, go, open, only, opened }),
  ];
}

/** Airflow would show an empty page for an error in a plugin. */
export class Guarded extends Component {
  state = { error: null };

  static getDerivedStateFromError(error) {
    return { error };
  }

  render() {
    const { error } = this.state;
    const notice = { className: "oab-notice oab-notice-error", role: "alert" };
    const body = error ? h("p", notice, String(error)) : h(Page, this.props);
    const heading = this.props.dagId ? null : h("h1", null, NAME);
    return h("div", { className: "openai-batches" }, heading, body);
  }
}
