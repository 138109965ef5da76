// Writes OPC UA PubSub messages (OPC 10000-14 §7.2.5) with node-opcua's own JSON encoder, in all four encodings, as one
// JSON object on stdout: {encoding: {metadata, status, keyframe: {values, variants}, deltaframe}}.
"use strict";
const path = require("path");
const modules = path.join(process.env.NODE_OPCUA_HOME, "node_modules");
const opcua = require(path.join(modules, "node-opcua"));
const types = require(path.join(modules, "node-opcua-types"));
const json = require(path.join(modules, "node-opcua-json"));

const NAMESPACES = ["http://opcfoundation.org/UA/"];
const AT = 1700000000123;
const at = (ms) => new Date(AT + ms);
const double = (value, rest) => new opcua.DataValue({ value: { dataType: "Double", value }, sourceTimestamp: at(0), ...rest });
const fields = {
  Power: double(-1.5, { serverTimestamp: at(20) }),
  Idle: double(0),
  Import: new opcua.DataValue({ value: { dataType: "UInt64", arrayType: "Scalar", value: [0, 5000] }, sourceTimestamp: at(-40) }),
  Voltage: new opcua.DataValue({ value: { dataType: "Float", value: 230.1 }, sourceTimestamp: at(-10) }),
  Soc: double(55.5, { statusCode: opcua.StatusCodes.UncertainLastUsableValue }),
  Current: new opcua.DataValue({ statusCode: opcua.StatusCodes.BadSensorFailure, sourceTimestamp: at(0) }),
};
const unit = (code, name) => new types.KeyValuePair({
  key: "EngineeringUnits",
  value: new opcua.Variant({ dataType: "ExtensionObject", value: opcua.makeEUInformation(code, name, name) }),
});
const metadata = new types.DataSetMetaDataType({
  name: "meter",
  fields: [
    new types.FieldMetaData({ name: "Power", builtInType: 11, valueRank: -1, properties: [unit("KWT", "kW")] }),
    new types.FieldMetaData({ name: "Import", builtInType: 9, valueRank: -1, properties: [unit("WHR", "Wh")] }),
    new types.FieldMetaData({ name: "Voltage", builtInType: 10, valueRank: -1 }),
  ],
  configurationVersion: { majorVersion: 7, minorVersion: 8 },
});

const body = (object, scheme) => {
  const encoded = json.opcuaJsonEncodeExtensionObject(object, scheme, NAMESPACES);
  return encoded.UaBody ?? encoded.Body ?? encoded;
};
const all = {};
for (const [name, scheme] of Object.entries(json.JsonEncodingScheme)) {
  if (typeof scheme !== "number") continue;
  const message = (kind, payload, sequence) => ({
    DataSetWriterId: 1, SequenceNumber: sequence, MetaDataVersion: { MajorVersion: 7, MinorVersion: 8 },
    Timestamp: at(1000).toISOString(), MessageType: kind, Payload: payload,
  });
  const encode = (how, wanted) => Object.fromEntries(wanted.map((key) => [key, how(fields[key])]));
  const values = (wanted) => encode((field) => json.opcuaJsonEncodeDataValue(field, scheme, NAMESPACES), wanted);
  const variant = (field) => field.statusCode.value >= 0x80000000
    ? json.opcuaJsonEncodeVariant(new opcua.Variant({ dataType: "StatusCode", value: field.statusCode }), scheme, NAMESPACES)
    : json.opcuaJsonEncodeVariant(field.value, scheme, NAMESPACES);
  all[name] = {
    metadata: body(new types.JsonDataSetMetaDataMessage({
      messageId: "1", messageType: "ua-metadata", publisherId: "plc1", dataSetWriterId: 1, metaData: metadata,
    }), scheme),
    status: body(new types.JsonStatusMessage({
      messageId: "2", messageType: "ua-status", publisherId: "plc1", status: 2, isCyclic: false,
    }), scheme),
    values: message("ua-keyframe", values(Object.keys(fields)), 1),
    variants: message("ua-keyframe", encode(variant, Object.keys(fields)), 2),
    delta: message("ua-deltaframe", values(["Power"]), 3),
  };
}
process.stdout.write(JSON.stringify(all) + "\n");
