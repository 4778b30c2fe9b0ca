// The child of tests/servers/node_opcua.py: an OPC UA server that shares no code with the agent's library.
// Orders come as lines of JSON on standard input, each is answered with a line; the end of the input ends it.
"use strict";
const path = require("path");
const readline = require("readline");
const opcua = require("node-opcua");
const { DataType, Variant, VariantArrayType, DataValue, StatusCodes, coerceStatusCode } = opcua;

const URI = "urn:test:plant";
const DECOYS = ["urn:test:decoy-1", "urn:test:decoy-2", "urn:test:decoy-3"];
const DECOY = -999;
const STATES = ["idle", "running", "故障"];
const [port, directory] = [Number(process.argv[2]), process.argv[3]];

let server = null;
let variables = {};
let index = 0;
let timer = null;
let written = 0;

function variant(spec) {
  if (typeof spec === "object" && spec !== null && !Array.isArray(spec)) {
    return new Variant({
      dataType: DataType[spec.type],
      arrayType: Array.isArray(spec.value) ? VariantArrayType.Array : VariantArrayType.Scalar,
      value: native(DataType[spec.type], spec.value),
    });
  }
  const one = Array.isArray(spec) ? spec[0] : spec;
  const dataType =
    typeof one === "boolean" ? DataType.Boolean : typeof one === "string" ? DataType.String : DataType.Double;
  return new Variant({ dataType, arrayType: Array.isArray(spec) ? VariantArrayType.Array : VariantArrayType.Scalar, value: spec });
}

function native(dataType, value) {
  switch (dataType) {
    case DataType.DateTime: return new Date(value);
    case DataType.ByteString: return Buffer.from(value, "hex");
    case DataType.LocalizedText: return opcua.coerceLocalizedText(value);
    case DataType.QualifiedName: return opcua.coerceQualifiedName(value);
    case DataType.NodeId: return opcua.coerceNodeId(value);
    case DataType.StatusCode: return coerceStatusCode(value);
    case DataType.Int64:
    case DataType.UInt64: return opcua.coerceInt64(value);
    default: return value;
  }
}

function addVariable(namespace, folder, name, spec, extra) {
  const first = variant(spec);
  const node = namespace.addVariable({
    organizedBy: folder,
    browseName: name,
    nodeId: "s=" + name,
    dataType: DataType[first.dataType],
    minimumSamplingInterval: 0,
    ...(first.arrayType === VariantArrayType.Array ? { valueRank: 1, arrayDimensions: [0] } : {}),
    ...extra,
  });
  node.setValueFromSource(first);
  return node;
}

const orders = {
  async start({ nodes, uris, how }) {
    const certificates = new opcua.OPCUACertificateManager({
      automaticallyAcceptUnknownCertificate: how.trusted === null,
      rootFolder: path.join(directory, "pki"),
    });
    await certificates.initialize();
    for (const der of how.trusted || []) await certificates.trustCertificate(Buffer.from(der, "hex"));
    server = new opcua.OPCUAServer({
      port,
      hostname: "127.0.0.1",
      resourcePath: "/",
      serverCertificateManager: certificates,
      securityPolicies: how.policies.map((name) => opcua.SecurityPolicy[name]),
      securityModes: how.modes.map((name) => opcua.MessageSecurityMode[name]),
      allowAnonymous: how.users === null,
      userManager: { isValidUser: (name, password) => how.users !== null && how.users[name] === password },
      defaultSecureTokenLifetime: how.channel_ms,
      isAuditing: false,
      maxConnectionsPerEndpoint: 50,
      serverCapabilities: {
        maxSessions: how.sessions,
        maxMonitoredItems: 100000,
        maxMonitoredItemsPerSubscription: 100000,
        operationLimits: how.limits,
      },
    });
    await server.initialize();
    const space = server.engine.addressSpace;
    const objects = space.rootFolder.objects;
    variables = {};
    for (const uri of uris) {
      const namespace = space.registerNamespace(uri);
      if (uri === URI) {
        index = namespace.index;
        for (const [name, spec] of Object.entries(nodes)) variables[name] = addVariable(namespace, objects, name, spec);
        tree(space, namespace, objects);
      } else {
        for (const name of Object.keys(nodes)) addVariable(namespace, objects, name, DECOY);
      }
    }
    await server.start();
    return { index, uris: space.getNamespaceArray().map((one) => one.namespaceUri) };
  },
  async stop() {
    orders.still();
    await server.shutdown(0);
    server = null;
  },
  async set({ name, value, status, source_ms }) {
    const at = source_ms === null ? new Date() : new Date(source_ms);
    const node = variables[name];
    const spec = new Variant({
      dataType: node.readValue().value.dataType,
      arrayType: Array.isArray(value) ? VariantArrayType.Array : VariantArrayType.Scalar,
      value: native(node.readValue().value.dataType, value),
    });
    node.setValueFromSource(spec, coerceStatusCode(status), at);
  },
  change({ names, every_ms }) {
    orders.still();
    written = 0;
    let number = 0;
    let due = Date.now();
    const kinds = names.map((name) => variables[name]);
    const step = () => {
      number += 1;
      const at = new Date();
      for (const node of kinds) node.setValueFromSource({ dataType: DataType.Double, value: number }, StatusCodes.Good, at);
      written += kinds.length;
      due += every_ms;
      timer = setTimeout(step, Math.max(0, due - Date.now()));
    };
    step();
  },
  still() {
    if (timer !== null) clearTimeout(timer);
    timer = null;
    return written;
  },
  sessions: () => server.engine.currentSessionCount,
  drop_subscriptions() {
    let count = 0;
    for (const session of Object.values(server.engine._sessions)) {
      for (const subscription of Object.values(session.publishEngine._subscriptions ?? {})) {
        subscription.terminate();
        count += 1;
      }
    }
    return count;
  },
  certificate: () => server.getCertificate().toString("hex"),
};

function tree(space, namespace, objects) {
  const states = namespace.addEnumerationType({
    browseName: "StateType",
    enumeration: STATES.map((displayName, value) => ({ displayName, value })),
  });
  const line = namespace.addObject({ organizedBy: objects, browseName: "Line", nodeId: "s=Line" });
  for (const press of ["Press1", "Press2"]) {
    const folder = namespace.addObject({ componentOf: line, browseName: press, nodeId: "s=" + press });
    variables[press + ".Speed"] = namespace.addAnalogDataItem({
      componentOf: folder,
      browseName: "Speed",
      nodeId: `s=${press}.Speed`,
      engineeringUnitsRange: { low: 0, high: 200 },
      engineeringUnits: opcua.standardUnits.metre_per_second,
      dataType: "Double",
      minimumSamplingInterval: 0,
      value: { dataType: DataType.Double, value: 100 },
    });
    const mode = namespace.addVariable({
      componentOf: folder, browseName: "State", nodeId: `s=${press}.State`, dataType: states, minimumSamplingInterval: 0,
    });
    mode.setValueFromSource({ dataType: DataType.Int32, value: 1 });
    variables[press + ".State"] = mode;
    variables[press + ".Multi"] = namespace.addMultiStateDiscrete({
      componentOf: folder, browseName: "Multi", nodeId: `s=${press}.Multi`, enumStrings: STATES, value: 2,
    });
    variables[press + ".标签"] = addVariable(namespace, folder, "标签" + press, "冲床", { browseName: "标签", organizedBy: folder });
  }
}

readline
  .createInterface({ input: process.stdin })
  .on("line", async (text) => {
    const { do: name, ...given } = JSON.parse(text);
    let answer;
    try {
      answer = { result: (await orders[name](given)) ?? null };
    } catch (error) {
      answer = { error: String((error && error.stack) || error) };
    }
    process.stdout.write(JSON.stringify(answer) + "\n");
  })
  .on("close", () => process.exit(0));
console.log = console.info = console.warn = console.debug = (...what) => process.stderr.write(what.join(" ") + "\n");
