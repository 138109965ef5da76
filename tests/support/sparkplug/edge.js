// An edge node of sparkplug-client for the adapter's tests. One JSON object as the only argument says what it is like;
// one JSON object a line on stdin tells it what to do, each is answered by one on stdout; events carry "event".
"use strict";
const path = require("path");
const readline = require("readline");
const root = process.env.SPARKPLUG_HOME;
const sparkplug = require(path.join(root, "node_modules", "sparkplug-client"));
const payloads = require(path.join(root, "node_modules", "sparkplug-payload")).get("spBv1.0");

const wanted = JSON.parse(process.argv[2]);
const say = (message) => process.stdout.write(JSON.stringify(message) + "\n");

// Metrics of each device: [name, type]; its alias is its place in the list plus 10.
const METRICS = [
  ["Meter/Power", "Double"],
  ["Meter/Import", "UInt64"],
  ["Control/Power", "Int32"],
  ["Control/Id", "String"],
  ["Control/Expires", "DateTime"],
  ["Control/Result", "String"],
  ["Padding", "String"],
];
let properties = {
  "Properties/Hardware Make": "Acme",
  "Properties/Hardware Model": "Meter 3",
  "Properties/FW": "1.2.3",
  "Properties/FW Version": "of another thing",
  "Properties/Serial Number": "SN-77",
};
const alias = (name) => METRICS.findIndex(([each]) => each === name) + 10;
const type = (name) => METRICS.find(([each]) => each === name)[1];

let client = null;
let behaviour = "obey";
let online = null; // the primary host's state: unknown without one
const born = new Set();
const held = []; // measured while the primary host was away
const answers = new Map();

const named = (name, value, more) => {
  const metric = { value, type: type(name), timestamp: Date.now(), ...more };
  if (wanted.aliases) metric.alias = alias(name);
  else metric.name = name;
  return metric;
};

function birth() {
  client.publishNodeBirth({
    timestamp: Date.now(),
    metrics: [{ name: "Node Control/Rebirth", type: "Boolean", value: false }],
  }, wanted.compress ? { compress: true } : undefined);
  for (const device of wanted.devices) {
    const metrics = METRICS.map(([name, kind]) => {
      const metric = { name, type: kind, value: null, timestamp: Date.now() };
      if (wanted.aliases) metric.alias = alias(name);
      return metric;
    });
    for (const [name, value] of Object.entries(properties)) metrics.push({ name, type: "String", value });
    client.publishDeviceBirth(device, { timestamp: Date.now(), metrics });
    born.add(device);
  }
  say({ event: "born" });
  for (const [device, payload] of held.splice(0)) client.publishDeviceData(device, payload);
}

function obey(device, payload) {
  const told = {};
  for (const metric of payload.metrics || []) {
    const given = metric.alias === undefined || metric.alias === null ? metric.name : METRICS[Number(metric.alias) - 10]?.[0];
    told[given] = typeof metric.value === "object" && metric.value !== null ? Number(metric.value) : metric.value;
  }
  const id = told["Control/Id"];
  say({ event: "told", device, told });
  if (behaviour === "silent") return;
  if (id === undefined || !answers.has(id)) {
    if (behaviour === "obey") say({ event: "act", device, told });
    answers.set(id, `${id}|${behaviour === "obey" ? "acked" : "failed"}|said by ${device}`);
  }
  const metrics = [named("Control/Result", answers.get(id))];
  if (behaviour === "obey") metrics.push(named("Control/Power", told["Control/Power"]));
  client.publishDeviceData(device, { timestamp: Date.now(), metrics });
}

function connect() {
  client = sparkplug.newClient({
    serverUrl: `mqtt://127.0.0.1:${wanted.port}`,
    username: wanted.username,
    password: wanted.password,
    groupId: wanted.group,
    edgeNode: wanted.node,
    clientId: wanted.node,
    version: "spBv1.0",
    publishDeath: true,
    keepalive: 10,
    mqttOptions: { reconnectPeriod: 200 },
  });
  client.on("birth", () => {
    if (wanted.host === undefined) return birth();
    online = null; // the retained STATE comes with the subscription
    client.subscribeTopic(`spBv1.0/STATE/${wanted.host}`, { qos: 1 }, () => undefined);
  });
  // STATE is JSON, which the client takes for a payload that it cannot read: so it is taken before.
  client.client.removeAllListeners("message");
  client.client.on("message", (topic, message) => {
    const parts = topic.split("/");
    if (parts[1] === "STATE") {
      const state = JSON.parse(message.toString());
      say({ event: "state", state });
      if (state.online && online !== state.timestamp) {
        online = state.timestamp;
        birth();
      } else if (!state.online) online = null;
      return;
    }
    const payload = payloads.decodePayload(message);
    if (parts[2] === "NCMD") {
      if ((payload.metrics || []).some((metric) => metric.name === "Node Control/Rebirth" && metric.value === true)) {
        say({ event: "rebirth" });
        birth();
      }
    } else if (parts[2] === "DCMD") obey(parts[4], payload);
  });
  client.on("close", () => say({ event: "closed" }));
  client.on("connect", () => say({ event: "connected" }));
}

const DO = {
  send({ device, number, padding, at, historical }) {
    const more = at === undefined ? {} : { timestamp: at };
    if (historical) more.isHistorical = true;
    const metrics = [named("Meter/Power", number, more)];
    if (padding) metrics.push(named("Padding", "x".repeat(padding)));
    const payload = { timestamp: Date.now(), metrics };
    if (wanted.host !== undefined && online === null) {
      for (const metric of metrics) metric.isHistorical = true;
      held.push([device, payload]);
      return { held: true };
    }
    client.publishDeviceData(device, payload);
    return {};
  },
  raw({ device, data }) {
    client.client.publish(`spBv1.0/${wanted.group}/DDATA/${wanted.node}/${device}`, Buffer.from(data, "base64"));
    return {};
  },
  skip({ count }) { // sequence numbers of messages that nobody gets
    for (let i = 0; i < count; i++) client.incrementSeqNum();
    return {};
  },
  introduce({ properties: told }) { // with the next birth
    properties = told;
    return {};
  },
  behave({ behaviour: told }) {
    behaviour = told;
    return {};
  },
  device_death({ device }) {
    born.delete(device);
    client.publishDeviceDeath(device, { timestamp: Date.now(), metrics: [] });
    return {};
  },
  sleep() {
    client.stop();
    client = null;
    return {};
  },
  wake() {
    connect();
    return {};
  },
};

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const { id, what, ...rest } = JSON.parse(line);
  try {
    say({ id, ...DO[what](rest) });
  } catch (error) {
    say({ id, error: String(error.stack || error) });
  }
}).on("close", () => process.exit(0));
connect();
