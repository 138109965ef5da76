// A client of node-opcua: reads and subscribes to variables, calls methods. Arguments: url, then one JSON object.
"use strict";
const path = require("path");
const opcua = require(path.join(process.env.NODE_OPCUA_HOME, "node_modules", "node-opcua"));

async function main() {
  const [url, orders] = [process.argv[2], JSON.parse(process.argv[3])];
  const certificates = new opcua.OPCUACertificateManager({ rootFolder: orders.pki, automaticallyAcceptUnknownCertificate: true });
  await certificates.initialize();
  const secured = orders.security && orders.security !== "None";
  const client = opcua.OPCUAClient.create({
    endpointMustExist: false,
    clientCertificateManager: certificates,
    securityPolicy: secured ? opcua.SecurityPolicy[orders.security] : opcua.SecurityPolicy.None,
    securityMode: secured ? opcua.MessageSecurityMode.SignAndEncrypt : opcua.MessageSecurityMode.None,
    connectionStrategy: { maxRetry: 3 },
  });
  await client.connect(url);
  const session = await client.createSession();
  const namespaces = await session.readNamespaceArray();
  const node = (text) => `ns=${namespaces.indexOf(orders.namespace)};s=${text}`;
  const answer = { values: {}, calls: [] };
  for (const text of orders.read || []) {
    const value = await session.read({ nodeId: node(text), attributeId: opcua.AttributeIds.Value });
    const raw = value.value.value;
    answer.values[text] = {
      value: Array.isArray(raw) ? raw[0] * 4294967296 + raw[1] : raw,
      status: value.statusCode.name,
      time: value.sourceTimestamp && value.sourceTimestamp.getTime(),
    };
  }
  const variant = ([kind, value]) => new opcua.Variant({
    dataType: opcua.DataType[kind],
    arrayType: opcua.VariantArrayType.Scalar,
    value: kind === "DateTime" ? new Date(value) : kind === "Int64" ? [Math.floor(value / 4294967296), value >>> 0] : value,
  });
  for (const call of orders.calls || []) {
    const result = await session.call({
      objectId: node(call.object), methodId: node(call.method), inputArguments: call.arguments.map(variant),
    });
    answer.calls.push(result.statusCode.name);
  }
  await session.close();
  await client.disconnect();
  process.stdout.write("ANSWER " + JSON.stringify(answer) + "\n", () => process.exit(0));
}

main().catch((error) => { console.error(error); process.exit(1); });
