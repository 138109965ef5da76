import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.Map;

import org.eclipse.leshan.core.endpoint.Protocol;
import org.eclipse.leshan.core.node.LwM2mPath;
import org.eclipse.leshan.core.node.TimestampedLwM2mNodes;
import org.eclipse.leshan.core.observation.CompositeObservation;
import org.eclipse.leshan.core.observation.Observation;
import org.eclipse.leshan.core.observation.SingleObservation;
import org.eclipse.leshan.core.request.ContentFormat;
import org.eclipse.leshan.core.request.DiscoverRequest;
import org.eclipse.leshan.core.request.DownlinkDeviceManagementRequest;
import org.eclipse.leshan.core.request.ObserveRequest;
import org.eclipse.leshan.core.request.ReadCompositeRequest;
import org.eclipse.leshan.core.request.ReadRequest;
import org.eclipse.leshan.core.request.SendRequest;
import org.eclipse.leshan.core.request.WriteRequest;
import org.eclipse.leshan.core.request.WriteRequest.Mode;
import org.eclipse.leshan.core.node.LwM2mSingleResource;
import org.eclipse.leshan.core.response.LwM2mResponse;
import org.eclipse.leshan.core.response.ObserveCompositeResponse;
import org.eclipse.leshan.core.response.ObserveResponse;
import org.eclipse.leshan.server.LeshanServer;
import org.eclipse.leshan.server.LeshanServerBuilder;
import org.eclipse.leshan.server.model.StaticModelProvider;
import org.eclipse.leshan.server.observation.ObservationListener;
import org.eclipse.leshan.server.registration.Registration;
import org.eclipse.leshan.server.registration.RegistrationListener;
import org.eclipse.leshan.server.registration.RegistrationUpdate;
import org.eclipse.leshan.server.send.SendListener;
import org.eclipse.leshan.servers.security.InMemorySecurityStore;
import org.eclipse.leshan.servers.security.SecurityInfo;
import org.eclipse.leshan.transport.californium.server.endpoint.CaliforniumServerEndpointsProvider;
import org.eclipse.leshan.transport.californium.server.endpoint.coap.CoapServerProtocolProvider;
import org.eclipse.leshan.transport.californium.server.endpoint.coaps.CoapsServerProtocolProvider;

/** A Leshan server led by lines on standard input. Arguments: port, securePort, endpoint, identity, key (hex), quiet. */
public final class Gateway {
    private static boolean quiet;

    public static void main(String[] arguments) throws Exception {
        Map<String, String> given = new HashMap<>();
        for (String argument : arguments) {
            String[] parts = argument.split("=", 2);
            given.put(parts[0], parts[1]);
        }
        quiet = given.containsKey("quiet");
        Thread.setDefaultUncaughtExceptionHandler((thread, error) -> {
            error.printStackTrace();
            Runtime.getRuntime().halt(1);
        });
        CaliforniumServerEndpointsProvider.Builder endpoints = new CaliforniumServerEndpointsProvider.Builder(
                new CoapServerProtocolProvider(), new CoapsServerProtocolProvider());
        endpoints.addEndpoint(address(given, "port"), Protocol.COAP);
        if (given.containsKey("securePort")) {
            endpoints.addEndpoint(address(given, "securePort"), Protocol.COAPS);
        }
        InMemorySecurityStore store = new InMemorySecurityStore();
        if (given.containsKey("identity")) {
            store.add(SecurityInfo.newPreSharedKeyInfo(given.get("endpoint"), given.get("identity"),
                    HexFormat.of().parseHex(given.get("key"))));
        }
        LeshanServerBuilder builder = new LeshanServerBuilder();
        builder.setEndpointsProviders(endpoints.build());
        builder.setSecurityStore(store);
        builder.setObjectModelProvider(new StaticModelProvider(Models.all()));
        LeshanServer server = builder.build();
        listen(server);
        server.start();
        say("started");
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            obey(server, line.trim().split(" "));
        }
        server.destroy();
        System.exit(0);
    }

    private static InetSocketAddress address(Map<String, String> given, String name) {
        return new InetSocketAddress("127.0.0.1", Integer.parseInt(given.get(name)));
    }

    private static void listen(LeshanServer server) {
        server.getRegistrationService().addListener(new RegistrationListener() {
            @Override
            public void registered(Registration now, Registration before, Collection<Observation> observations) {
                tell("registered " + now.getEndpoint() + " " + Arrays.toString(now.getSortedObjectLinks()));
            }

            @Override
            public void updated(RegistrationUpdate update, Registration now, Registration before) {
                tell("updated " + now.getEndpoint());
            }

            @Override
            public void unregistered(Registration gone, Collection<Observation> observations, boolean expired,
                    Registration now) {
                tell("unregistered " + gone.getEndpoint());
            }
        });
        server.getSendService().addListener(new SendListener() {
            @Override
            public void dataReceived(Registration registration, TimestampedLwM2mNodes data, SendRequest request) {
                if (!quiet) {
                    data.getTimestamps().forEach(at -> data.getNodesAt(at).forEach((path, node) -> say(
                            "data " + registration.getEndpoint() + " " + (at == null ? "-" : at.toEpochMilli()) + " " + path
                                    + " " + ((LwM2mSingleResource) node).getValue())));
                }
            }

            @Override
            public void onError(Registration registration, String error, Exception cause) {
                say("send error " + (cause.getCause() == null ? cause : cause.getCause()));
            }
        });
        server.getObservationService().addListener(new ObservationListener() {
            @Override
            public void newObservation(Observation observation, Registration registration) {
                tell("observing " + registration.getEndpoint());
            }

            @Override
            public void cancelled(Observation observation) {
                tell("cancelled");
            }

            @Override
            public void onResponse(SingleObservation observation, Registration registration, ObserveResponse response) {
                tell("notified " + observation.getPath() + " " + response.getContent());
            }

            @Override
            public void onResponse(CompositeObservation observation, Registration registration,
                    ObserveCompositeResponse response) {
                tell("notified " + response.getContent());
            }

            @Override
            public void onError(Observation observation, Registration registration, Exception error) {
                say("notification error " + error);
            }
        });
    }

    private static void obey(LeshanServer server, String[] words) {
        try {
            Registration registration = server.getRegistrationStore().getRegistrationByEndpoint(words[1]);
            ContentFormat format = words.length > 2 && words[2].matches("\\d+")
                    ? ContentFormat.fromCode(Integer.parseInt(words[2]))
                    : null;
            DownlinkDeviceManagementRequest<? extends LwM2mResponse> request = switch (words[0]) {
            case "read" -> new ReadRequest(format, words[3]);
            case "discover" -> new DiscoverRequest(words[2]);
            case "observe" -> new ObserveRequest(format, words[3]);
            case "composite" -> new ReadCompositeRequest(format, format,
                    Arrays.asList(words).subList(3, words.length));
            case "event" -> {
                int object = new LwM2mPath(words[3]).getObjectId();
                yield new WriteRequest(Mode.UPDATE, format, object, 0,
                        LwM2mSingleResource.newStringResource(5823, words[4]),
                        LwM2mSingleResource.newDateResource(5824, new java.util.Date(Long.parseLong(words[5]) * 1000)),
                        LwM2mSingleResource.newIntegerResource(5825, Long.parseLong(words[6])),
                        LwM2mSingleResource.newIntegerResource(5827, Long.parseLong(words[7])));
            }
            default -> throw new IllegalArgumentException(words[0]);
            };
            LwM2mResponse response = server.send(registration, request, 20_000);
            say(words[0] + " " + (response == null ? "timeout" : response.toString()));
        } catch (Exception error) {
            say("error " + error);
        }
    }

    private static void tell(String line) {
        if (!quiet) {
            say(line);
        }
    }

    private static synchronized void say(String line) {
        System.out.println(line.replace('\n', ' '));
        System.out.flush();
    }
}
