// The page: one viewer with the panels that the server names, kept alive over restarts of the server.

const root = document.documentElement;
const viewer = document.getElementById("panels");
const byId = (id) => document.getElementById(id);
const NARROW = matchMedia("(max-width: 900px)");
const SILENCE_MS = 6000; // the server says something each second

const { ready } = await import(`${root.dataset.assets}/perspective-anywidget.js`);
await ready;
const { Client } = customElements.get("perspective-viewer").__wasm_module__;

let status = null; // what the server said last
let heardAt = 0;
let declared = null; // the server's panels that are shown
let loaded = false; // whether the viewer has a client, alive or dead
let kept = null; // the panels as they were when the connection was lost
let blamed = { text: "", until: 0 }; // what the server said when it closed the connection for what was asked

const REFUSED = 1008;
const TRY_LATER = 1013;
const BLAMED_MS = 15000;

function show(state, text) {
  root.dataset.state = state;
  byId("state-text").textContent = text;
}

function age(ms) {
  if (ms < 10000) return [(ms / 1000).toFixed(1) + " s", "since the last row"];
  if (ms < 90000) return [Math.round(ms / 1000) + " s", "since the last row"];
  if (ms < 5400000) return [Math.round(ms / 60000) + " min", "since the last row"];
  return [Math.round(ms / 3600000) + " h", "since the last row"];
}

function tick() {
  if (!status) return;
  const ages = Object.values(status.tables).map((table) => table.age_ms).filter((ms) => ms !== null);
  const sinceHeard = performance.now() - heardAt;
  const [value, unit] = ages.length ? age(Math.min(...ages) + sinceHeard) : ["–", "no row yet"];
  byId("freshness").textContent = value;
  byId("freshness-unit").textContent = unit;
}

function told(text) {
  status = JSON.parse(text);
  heardAt = performance.now();
  if (status.perspective !== root.dataset.perspective) location.reload(); // the server was upgraded
  const rows = Object.values(status.tables).reduce((sum, table) => sum + table.rows, 0);
  root.dataset.rows = rows;
  byId("rate").textContent = status.rows_per_s.toLocaleString("en", { maximumFractionDigits: status.rows_per_s < 10 ? 1 : 0 });
  if (status.waiting) show("waiting", `waiting for the ${status.waiting.includes("engine") ? "engine" : "store"}`);
  else show("live", rows ? "live" : "live, no rows yet");
  const old = Object.entries(status.tables)
    .filter(([, table]) => table.too_old)
    .map(([name, table]) => `${table.too_old.toLocaleString("en")} readings of ${name} are older than the store keeps`)
    .join(" · ");
  byId("notice").textContent = status.waiting ?? (performance.now() < blamed.until ? blamed.text : old);
  const hidden = Object.values(status.tables)
    .flatMap((table) => Object.values(table.shown))
    .reduce((most, table) => Math.max(most, table.hidden_devices), 0);
  const behind = Object.values(status.tables).some((table) => table.behind || table.jumps);
  const notes = [];
  if (hidden) notes.push(`charts show a few devices only; ${hidden.toLocaleString("en")} more are in the tables`);
  if (behind) notes.push("more comes in than can be shown: the newest rows are");
  if (notes.length) byId("hint").textContent = notes.join(" · ");
  tick();
}

async function restore(client) {
  const answer = await (await fetch("/panels")).json();
  const changed = JSON.stringify(answer) !== JSON.stringify(declared);
  const panels = kept && !changed ? kept : arranged(answer);
  if (loaded) await viewer.eject();
  loaded = true;
  await viewer.load(client);
  await viewer.restoreWorkspace(panels);
  declared = answer;
  byId("line").textContent = answer.line;
  document.title = `${answer.line} · Headrace`;
  root.dataset.panels = Object.keys(panels.panels).length;
}

const arranged = ({ panels, layouts }) => ({ panels, layout: NARROW.matches ? layouts.narrow : layouts.wide });

function connect() {
  // Resolves when the connection is lost, with whether it had been open.
  return new Promise((lost) => {
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/websocket`);
    socket.binaryType = "arraybuffer";
    const send = async (request) => {
      // A viewer that is being emptied still says good-bye to its views, over whatever connection it had.
      if (socket.readyState === WebSocket.OPEN) socket.send(request.slice().buffer);
    };
    const client = new Client(send, async () => socket.close());
    let opened = false;
    let whole = false;
    const watch = setInterval(() => {
      if (opened && performance.now() - heardAt > SILENCE_MS) socket.close();
    }, 1000);
    socket.onopen = async () => {
      opened = true;
      heardAt = performance.now();
      try {
        await restore(client);
        whole = true;
        root.dataset.connections = Number(root.dataset.connections ?? 0) + 1;
      } catch (failure) {
        if (socket.readyState === WebSocket.OPEN) {
          console.error(failure);
          byId("notice").textContent = `the panels cannot be shown: ${failure.message ?? failure}`;
          socket.close();
        }
      }
    };
    socket.onmessage = (event) => {
      if (typeof event.data === "string") told(event.data);
      else client.handle_response(event.data);
    };
    socket.onclose = async (event) => {
      clearInterval(watch);
      show("reconnecting", "reconnecting");
      // First: what waits for an answer that will not come would hold up everything after it.
      if (opened) await client.handle_error(`closed ${event.code}`, async () => {});
      if (whole) kept = await viewer.saveWorkspace();
      if (event.code === REFUSED || event.code === TRY_LATER) {
        blamed = { text: `the server closed the connection: ${event.reason}`, until: performance.now() + BLAMED_MS };
        byId("notice").textContent = blamed.text;
      }
      // What these panels asked for was too much: they must not ask again.
      if (event.code === REFUSED) kept = null;
      lost(opened && event.code !== TRY_LATER);
    };
  });
}

NARROW.addEventListener("change", async () => {
  if (declared && root.dataset.state !== "reconnecting") await viewer.restoreWorkspace(arranged(declared));
});
setInterval(tick, 200);

for (let wait = 250; ; wait = Math.min(wait * 2, 2000)) {
  if (await connect()) wait = 125;
  await new Promise((go) => setTimeout(go, wait));
}
