// An OPC UA server of node-opcua for the adapter's tests. One JSON object as the only argument says what it is like;
// one JSON object a line on stdin tells it what to do, each is answered by one on stdout; events carry "event".
"use strict";
const fs = require("fs");
const path = require("path");
const readline = require("readline");
const root = process.env.NODE_OPCUA_HOME;
const opcua = require(path.join(root, "node_modules", "node-opcua"));
const { Subscription } = opcua;

const wanted = JSON.parse(process.argv[2]);
const say = (message) => process.stdout.write(JSON.stringify(message) + "\n");

// What a client acknowledges, as the server sees it: the numbers in the notification.
const acknowledge = Subscription.prototype.acknowledgeNotification;
Subscription.prototype.acknowledgeNotification = function (sequence) {
  const sent = this._sent_notification_messages.find((each) => each.sequenceNumber === sequence);
  const values = [];
  for (const data of sent?.notificationData || [])
    for (const item of data?.monitoredItems || []) if (item.value?.statusCode?.isGood()) values.push(item.value?.value?.value);
  const status = acknowledge.call(this, sequence);
  say({ event: "acknowledged", sequence, values, status: status.name });
  return status;
};

const DATE = (ms) => new Date(ms);

async function main() {
  const secured = wanted.security !== "None";
  const manager = new opcua.OPCUACertificateManager({ rootFolder: wanted.pki, automaticallyAcceptUnknownCertificate: !!wanted.acceptAll });
  await manager.initialize();
  if (wanted.trusted) for (const file of wanted.trusted) await manager.trustCertificate(fs.readFileSync(file));
  const server = new opcua.OPCUAServer({
    port: wanted.port,
    host: "127.0.0.1",
    hostname: "127.0.0.1",
    resourcePath: "/test",
    serverInfo: { applicationUri: wanted.uri || "urn:test:node-opcua", productUri: "test", applicationName: { text: "test" } },
    buildInfo: { productName: "test", manufacturerName: "Builders", softwareVersion: "9.8.7", buildNumber: "1", buildDate: new Date(0) },
    securityPolicies: [secured ? opcua.SecurityPolicy[wanted.security] : opcua.SecurityPolicy.None],
    securityModes: [secured ? opcua.MessageSecurityMode.SignAndEncrypt : opcua.MessageSecurityMode.None],
    serverCertificateManager: manager,
    userCertificateManager: manager,
    ...(wanted.certificate ? { certificateFile: wanted.certificate, privateKeyFile: wanted.key } : {}),
    allowAnonymous: !wanted.users,
    disableDiscovery: false,
    userManager: { isValidUser: (name, word) => !!wanted.users && wanted.users[name] === word },
    serverCapabilities: { maxSessions: wanted.maxSessions ?? 200, maxMonitoredItemsQueueSize: 200000, maxSubscriptionsPerSession: 20, minSupportedSampleRate: 0, operationLimits: wanted.limits || {} },
    maxConnectionsPerEndpoint: 200,
  });
  await server.initialize();
  const space = server.engine.addressSpace;
  const own = space.getOwnNamespace();
  const history = wanted.historyFile;
  const values = {};
  const objects = {};
  const describe = (where, properties) => {
    for (const [browseName, value] of Object.entries(properties)) {
      const dataType = ["Manufacturer", "Model"].includes(browseName) ? "LocalizedText" : "String";
      own.addVariable({ propertyOf: where, browseName, dataType, value: { dataType, value: dataType === "String" ? value : opcua.coerceLocalizedText(value) } });
    }
  };
  for (const [device, names] of Object.entries(wanted.devices)) {
    const object = own.addObject({ organizedBy: space.rootFolder.objects, browseName: device, nodeId: `s=${device}` });
    objects[device] = object;
    const plate = (wanted.nameplates || {})[device];
    if (plate) describe(plate.group ? own.addObject({ componentOf: object, browseName: "Identification" }) : object, plate.properties);
    for (const name of names) {
      const key = `${device}.${name}`;
      const how = {
        componentOf: object,
        browseName: name,
        nodeId: `s=${key}`,
        dataType: "Double",
        minimumSamplingInterval: 0,
        value: { dataType: opcua.DataType.Double, value: 0 },
      };
      // with a range the variable is an analogue item, which has filters in per cent of it
      const range = wanted.ranges?.[key];
      const variable = range
        ? own.addAnalogDataItem({ ...how, engineeringUnitsRange: { low: range[0], high: range[1] } })
        : own.addVariable(how);
      const nothing = wanted.initial === undefined;
      variable.setValueFromSource(
        { dataType: opcua.DataType.Double, value: wanted.initial ?? 0 },
        nothing ? opcua.StatusCodes.BadWaitingForInitialData : opcua.StatusCodes.Good,
        DATE(wanted.initialTime || Date.now()));
      if (wanted.history) space.installHistoricalDataNode(variable, { maxOnlineValues: 100000 });
      values[key] = variable;
    }
  }
  const set = (key, value, time, status) => {
    const variable = values[key];
    const good = status ? opcua.StatusCodes[status] : opcua.StatusCodes.Good;
    const variant = Array.isArray(value)
      ? { dataType: opcua.DataType.Double, arrayType: opcua.VariantArrayType.Array, value: Float64Array.from(value) }
      : typeof value === "string" && !["NaN", "Infinity"].includes(value)
        ? { dataType: opcua.DataType.String, value }
        : { dataType: opcua.DataType.Double, value: typeof value === "string" ? Number(value) : value };
    variable.setValueFromSource(variant, good, DATE(time));
  };
  if (history && fs.existsSync(history))
    for (const line of fs.readFileSync(history, "utf8").split("\n"))
      if (line) set(...JSON.parse(line));

  // Commands: a set-point that keeps to limits, and a method that knows a command by its id.
  const acts = [];
  let behaviour = "obey";
  const done = new Set();
  const setpoint = own.addVariable({
    organizedBy: space.rootFolder.objects, browseName: "setpoint", nodeId: "s=setpoint", dataType: "Double",
    value: {
      get: () => new opcua.Variant({ dataType: opcua.DataType.Double, value: acts.length ? acts[acts.length - 1].value : 0 }),
      set: (variant) => {
        if (behaviour === "refuse") return opcua.StatusCodes.BadOutOfRange;
        acts.push({ value: variant.value });
        return opcua.StatusCodes.Good;
      },
    },
  });
  const plant = own.addObject({ organizedBy: space.rootFolder.objects, browseName: "plant", nodeId: "s=plant" });
  const method = own.addMethod(plant, {
    browseName: "SetPower", nodeId: "s=SetPower", modellingRule: null,
    inputArguments: [
      { name: "id", dataType: opcua.DataType.String },
      { name: "power", dataType: opcua.DataType.Double },
      { name: "from", dataType: opcua.DataType.Int64 },
      { name: "until", dataType: opcua.DataType.Int64 },
    ],
    outputArguments: [],
  });
  method.bindMethod((inputs, context, callback) => {
    if (behaviour === "silent") return; // never answered
    if (behaviour === "refuse") return callback(null, { statusCode: opcua.StatusCodes.BadUserAccessDenied });
    const [id, power, from, until] = inputs.map((input) => input.value);
    const whole = (value) => (Array.isArray(value) ? value[0] * 4294967296 + value[1] : Number(value));
    if (!done.has(id)) say({ event: "act", act: { id, power, from: whole(from), until: whole(until) } });
    done.add(id);
    callback(null, { statusCode: opcua.StatusCodes.Good, outputArguments: [] });
  });

  await server.start();
  say({ event: "ready", port: wanted.port, certificate: server.certificateFile });

  const does = {
    set: ({ key, value, time, status }) => {
      if (history) fs.appendFileSync(history, JSON.stringify([key, value, time, status]) + "\n");
      set(key, value, time, status);
    },
    many: ({ key, from, count, time, step }) => {
      for (let n = 0; n < count; n++) set(key, from + n, time + n * (step ?? 1));
    },
    all: ({ name, from, time }) => {
      Object.keys(wanted.devices).forEach((device, n) => set(`${device}.${name}`, from + n, time));
    },
    introduce: ({ device, properties }) => describe(objects[device], properties),
    behave: (order) => { behaviour = order.behaviour; },
    acts: () => ({ acts }),
    sessions: () => ({ sessions: server.currentSessionCount, subscriptions: server.currentSubscriptionCount }),
    cut: () => { for (const endpoint of server.endpoints) endpoint.abruptlyInterruptChannels(); },
    stop: async () => { await server.shutdown(0); say({ event: "stopped" }); process.exit(0); },
  };
  const lines = readline.createInterface({ input: process.stdin });
  lines.on("line", async (line) => {
    const order = JSON.parse(line);
    try {
      say({ id: order.id, ...(await does[order.do](order)) });
    } catch (error) {
      say({ id: order.id, error: String(error) });
    }
  });
  lines.on("close", () => process.exit(0));
}

main().catch((error) => { say({ event: "failed", error: String(error && error.stack) }); process.exit(1); });
