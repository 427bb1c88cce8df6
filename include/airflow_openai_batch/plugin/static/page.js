// What Airflow's UI imports; it renders the component that this leaves in globalThis. All files are asked for at once:
// each is a request with a login to check, and one import after another would add them up.

const MODULES = ["api", "dialog", "format", "history", "job", "jobs", "parts", "place", "queues", "shards"];

function addLink(rel, name) {
  const link = document.createElement("link");
  link.rel = rel;
  link.href = new URL(name, import.meta.url).href;
  document.head.append(link);
  return new Promise((resolve) => {
    link.onload = link.onerror = resolve;
  });
}

const styles = addLink("stylesheet", "page.css"); // nothing is shown without them
for (const name of MODULES) addLink("modulepreload", `${name}.js`);
const [{ Guarded, NAME }] = await Promise.all([import("./app.js"), styles]);
globalThis[NAME] = Guarded;
globalThis.AirflowPlugin = Guarded;
