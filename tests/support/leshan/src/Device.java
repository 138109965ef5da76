import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.InetAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Date;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;

import org.eclipse.californium.core.config.CoapConfig;
import org.eclipse.californium.elements.config.Configuration;
import org.eclipse.californium.scandium.config.DtlsConfig;
import org.eclipse.leshan.client.LeshanClient;
import org.eclipse.leshan.client.LeshanClientBuilder;
import org.eclipse.leshan.client.engine.DefaultRegistrationEngineFactory;
import org.eclipse.leshan.client.object.Security;
import org.eclipse.leshan.client.object.Server;
import org.eclipse.leshan.client.observer.LwM2mClientObserverAdapter;
import org.eclipse.leshan.client.resource.BaseInstanceEnablerFactory;
import org.eclipse.leshan.client.resource.LwM2mInstanceEnabler;
import org.eclipse.leshan.client.resource.ObjectsInitializer;
import org.eclipse.leshan.client.resource.SimpleInstanceEnabler;
import org.eclipse.leshan.client.resource.LwM2mObjectEnabler;
import org.eclipse.leshan.client.send.ManualDataSender;
import org.eclipse.leshan.client.servers.LwM2mServer;
import org.eclipse.leshan.core.ResponseCode;
import org.eclipse.leshan.core.model.ResourceModel;
import org.eclipse.leshan.core.model.StaticModel;
import org.eclipse.leshan.core.node.LwM2mPath;
import org.eclipse.leshan.core.node.LwM2mResource;
import org.eclipse.leshan.core.request.ContentFormat;
import org.eclipse.leshan.core.request.BootstrapRequest;
import org.eclipse.leshan.core.request.DeregisterRequest;
import org.eclipse.leshan.core.request.RegisterRequest;
import org.eclipse.leshan.core.request.UpdateRequest;
import org.eclipse.leshan.core.request.argument.Arguments;
import org.eclipse.leshan.core.response.ExecuteResponse;
import org.eclipse.leshan.core.response.SendResponse;
import org.eclipse.leshan.core.response.WriteResponse;
import org.eclipse.leshan.transport.californium.client.endpoint.CaliforniumClientEndpointsProvider;
import org.eclipse.leshan.transport.californium.client.endpoint.coap.CoapClientProtocolProvider;
import org.eclipse.leshan.transport.californium.client.endpoint.coaps.CoapsClientProtocolProvider;

/**
 * A Leshan client led by lines on standard input; what happens is told in lines on standard output.
 * Arguments are name=value: url, name, address, lifetime, queue, bootstrap, identity, key (PSK, hex),
 * certificate, privateKey, serverCertificate (DER files), publicKey, serverPublicKey (DER files: raw public keys),
 * cid (bytes of the connection identifiers that it offers), retransmissions, timeout (ms).
 */
public final class Device {
    private static final Map<Integer, Meter> meters = new HashMap<>();

    private static final class Meter extends SimpleInstanceEnabler {
        private final int object;

        Meter(int object, Map<Integer, Object> values) {
            super(0, values);
            this.object = object;
        }

        /** One that the server creates: it gives the instance's identifier. */
        Meter(int object) {
            this.object = object;
        }

        void put(int resource, Object value) {
            fireResourcesChange(applyValues(Map.of(resource, value)));
        }

        @Override
        public WriteResponse write(LwM2mServer server, boolean replace, int id, LwM2mResource value) {
            if (Boolean.getBoolean("refuse")) {
                return WriteResponse.badRequest("told to refuse");
            }
            WriteResponse response = super.write(server, replace, id, value);
            Object written = value.getValue();
            String text = written instanceof Date ? Long.toString(((Date) written).getTime() / 1000)
                    : written instanceof byte[] ? HexFormat.of().formatHex((byte[]) written) : written.toString();
            say("written /" + object + "/0/" + id + " " + (text.length() > 80 ? "length " + text.length() : text));
            return response;
        }

        @Override
        public ExecuteResponse execute(LwM2mServer server, int id, Arguments arguments) {
            say("executed /" + object + "/0/" + id);
            return ExecuteResponse.success();
        }
    }

    public static void main(String[] arguments) throws Exception {
        Map<String, String> given = new HashMap<>();
        for (String argument : arguments) {
            String[] parts = argument.split("=", 2);
            given.put(parts[0], parts[1]);
        }
        Thread.setDefaultUncaughtExceptionHandler((thread, error) -> {
            error.printStackTrace();
            Runtime.getRuntime().halt(1);
        });
        LeshanClient client = client(given);
        client.addObserver(new LwM2mClientObserverAdapter() {
            @Override
            public void onRegistrationSuccess(LwM2mServer server, RegisterRequest request, String id) {
                say("registered " + id);
            }

            @Override
            public void onRegistrationFailure(LwM2mServer server, RegisterRequest request, ResponseCode code,
                    String message, Exception cause) {
                say("registration failed " + code + " " + message + " " + cause);
            }

            @Override
            public void onRegistrationTimeout(LwM2mServer server, RegisterRequest request) {
                say("registration timeout");
            }

            @Override
            public void onUpdateSuccess(LwM2mServer server, UpdateRequest request) {
                say("updated");
            }

            @Override
            public void onUpdateFailure(LwM2mServer server, UpdateRequest request, ResponseCode code, String message,
                    Exception cause) {
                say("update failed " + code);
            }

            @Override
            public void onDeregistrationSuccess(LwM2mServer server, DeregisterRequest request) {
                say("deregistered");
            }

            @Override
            public void onBootstrapSuccess(LwM2mServer server, BootstrapRequest request) {
                say("bootstrapped");
            }

            @Override
            public void onBootstrapFailure(LwM2mServer server, BootstrapRequest request, ResponseCode code,
                    String message, Exception cause) {
                say("bootstrap failed " + code + " " + message + " " + cause);
            }

            @Override
            public void onBootstrapTimeout(LwM2mServer server, BootstrapRequest request) {
                say("bootstrap timeout");
            }

            @Override
            public void onUnexpectedError(Throwable error) {
                say("unexpected " + error);
            }
        });
        client.start();
        say("started");
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            obey(client, line.trim().split(" "));
        }
        client.destroy(false);
        System.exit(0);
    }

    private static LeshanClient client(Map<String, String> given) throws Exception {
        ObjectsInitializer objects = new ObjectsInitializer(new StaticModel(Models.all()));
        objects.setInstancesForObject(0, security(given));
        long lifetime = Long.parseLong(given.getOrDefault("lifetime", "300"));
        if (given.containsKey("bootstrap")) {
            objects.setClassForObject(1, Server.class);
        } else {
            objects.setInstancesForObject(1, new Server(1, lifetime));
        }
        Map<Integer, Object> values = new HashMap<>(
                Map.of(5800, 0.0, 5805, 0.0, 5810, 0.0, 5750, "meter", 6000, new byte[] { 1, 2 }));
        meters.put(3305, new Meter(3305, values));
        meters.put(3316, new Meter(3316, new HashMap<>(Map.of(5700, 230.0, 5701, "V"))));
        meters.put(3310, new Meter(3310, new HashMap<>(
                Map.of(5823, "", 5824, new Date(0), 5825, 0L, 5826, 0L, 5827, 0L))));
        meters.put(3312, new Meter(3312, new HashMap<>(Map.of(5850, false, 5851, 0L))));
        meters.put(3411, new Meter(3411, new HashMap<>(Map.of(1, 55L, 5, 10L, 7, false))));
        meters.forEach((id, meter) -> {
            objects.setFactoryForObject(id, new BaseInstanceEnablerFactory() {
                @Override
                public LwM2mInstanceEnabler create() {
                    return new Meter(id);
                }
            });
            objects.setInstancesForObject(id, meter);
        });
        objects.setInstancesForObject(3, new SimpleInstanceEnabler(0, new HashMap<>(
                Map.of(0, "Eclipse", 1, "Leshan", 2, "SN-7", 3, given.getOrDefault("firmware", "2.0.1"), 9, 85L, 16, "U"))));
        List<LwM2mObjectEnabler> enablers = new ArrayList<>(
                objects.create(0, 1));
        enablers.addAll(objects.create(3, 3305, 3316, 3310, 3312, 3411));

        DefaultRegistrationEngineFactory engine = new DefaultRegistrationEngineFactory();
        engine.setQueueMode(Boolean.parseBoolean(given.getOrDefault("queue", "false")));
        engine.setReconnectOnUpdate(false);
        engine.setRetryWaitingTimeInMs(1000);
        engine.setRequestTimeoutInMs(Long.parseLong(given.getOrDefault("timeout", "10000")));

        CaliforniumClientEndpointsProvider.Builder endpoints = new CaliforniumClientEndpointsProvider.Builder(
                new CoapClientProtocolProvider(), new CoapsClientProtocolProvider());
        Configuration configuration = endpoints.createDefaultConfiguration();
        if (given.containsKey("cid")) {
            configuration.set(DtlsConfig.DTLS_CONNECTION_ID_LENGTH, Integer.valueOf(given.get("cid")));
        }
        if (given.containsKey("retransmissions")) {
            configuration.set(CoapConfig.MAX_RETRANSMIT, Integer.valueOf(given.get("retransmissions")));
            configuration.set(DtlsConfig.DTLS_MAX_RETRANSMISSIONS, Integer.valueOf(given.get("retransmissions")));
        }
        endpoints.setConfiguration(configuration);
        if (given.containsKey("address")) {
            endpoints.setClientAddress(InetAddress.getByName(given.get("address")));
        }
        LeshanClientBuilder builder = new LeshanClientBuilder(given.get("name"));
        builder.setObjects(enablers);
        builder.setDataSenders(new ManualDataSender());
        builder.setRegistrationEngineFactory(engine);
        builder.setEndpointsProviders(endpoints.build());
        return builder.build();
    }

    private static Security security(Map<String, String> given) throws Exception {
        String url = given.get("url");
        boolean bootstrap = given.containsKey("bootstrap");
        if (given.containsKey("publicKey")) {
            byte[] own = read(given, "publicKey");
            return Security.rpk(url, 1, own, read(given, "privateKey"), read(given, "serverPublicKey"));
        }
        if (given.containsKey("certificate")) {
            byte[] own = read(given, "certificate");
            byte[] key = read(given, "privateKey");
            byte[] server = read(given, "serverCertificate");
            return bootstrap ? Security.x509Bootstrap(url, own, key, server) : Security.x509(url, 1, own, key, server);
        }
        if (given.containsKey("identity")) {
            byte[] identity = given.get("identity").getBytes(StandardCharsets.UTF_8);
            byte[] key = HexFormat.of().parseHex(given.get("key"));
            return bootstrap ? Security.pskBootstrap(url, identity, key) : Security.psk(url, 1, identity, key);
        }
        return bootstrap ? Security.noSecBootstrap(url) : Security.noSec(url, 1);
    }

    private static byte[] read(Map<String, String> given, String name) throws Exception {
        return Files.readAllBytes(Path.of(given.get(name)));
    }

    private static void obey(LeshanClient client, String[] words) {
        try {
            switch (words[0]) {
            case "set" -> {
                LwM2mPath path = new LwM2mPath(words[1]);
                Meter meter = meters.get(path.getObjectId());
                ResourceModel model = meter.getModel().resources.get(path.getResourceId());
                Object value = switch (model.type) {
                case FLOAT -> Double.valueOf(words[2]);
                case INTEGER -> Long.valueOf(words[2]);
                case BOOLEAN -> Boolean.valueOf(words[2]);
                default -> words[2];
                };
                meter.put(path.getResourceId(), value);
                say("set " + words[1]);
            }
            case "send" -> {
                ContentFormat format = ContentFormat.fromCode(Integer.parseInt(words[1]));
                List<String> paths = Arrays.asList(words).subList(2, words.length);
                SendResponse response = client.getSendService().sendData(server(client), format, paths, 60_000);
                say("sent " + (response == null ? "timeout" : response.getCode()));
            }
            case "collect" -> {
                List<LwM2mPath> paths = new ArrayList<>();
                for (String path : Arrays.asList(words).subList(1, words.length)) {
                    paths.add(new LwM2mPath(path));
                }
                sender(client).collectData(paths);
                say("collected");
            }
            case "sendcollected" -> {
                sender(client).sendCollectedData(server(client),
                        ContentFormat.fromCode(Integer.parseInt(words[1])), 60_000, false);
                say("sentcollected");
            }
            case "refuse" -> {
                System.setProperty("refuse", words[1]);
                say("refuse " + words[1]);
            }
            case "update" -> client.triggerRegistrationUpdate();
            case "stop" -> {
                client.stop(true);
                say("stopped");
            }
            case "start" -> client.start();
            default -> say("unknown " + words[0]);
            }
        } catch (Exception error) {
            say("error " + error);
        }
    }

    private static LwM2mServer server(LeshanClient client) {
        return client.getRegisteredServers().values().iterator().next();
    }

    private static ManualDataSender sender(LeshanClient client) {
        return client.getSendService().getDataSender(ManualDataSender.DEFAULT_NAME, ManualDataSender.class);
    }

    private static synchronized void say(String line) {
        System.out.println(line);
        System.out.flush();
    }
}
