import java.util.ArrayList;
import java.util.List;

import org.eclipse.leshan.core.model.ObjectLoader;
import org.eclipse.leshan.core.model.ObjectModel;
import org.eclipse.leshan.core.model.ResourceModel;
import org.eclipse.leshan.core.model.ResourceModel.Operations;
import org.eclipse.leshan.core.model.ResourceModel.Type;

/** The objects that Leshan does not bring: identifiers, types and units of the OMA registry. */
final class Models {
    private Models() {
    }

    static List<ObjectModel> all() {
        List<ObjectModel> models = new ArrayList<>(ObjectLoader.loadDefault());
        models.add(object(3305, read(5800, Type.FLOAT), read(5805, Type.FLOAT), read(5810, Type.FLOAT),
                read(5820, Type.FLOAT), write(5750, Type.STRING), execute(5822), write(6000, Type.OPAQUE)));
        models.add(object(3316, read(5700, Type.FLOAT), read(5701, Type.STRING)));
        for (int sensor : new int[] { 3317, 3318, 3329 }) {
            models.add(object(sensor, read(5700, Type.FLOAT), read(5701, Type.STRING)));
        }
        models.add(object(3310, write(5823, Type.STRING), write(5824, Type.TIME), write(5825, Type.INTEGER),
                write(5826, Type.INTEGER), write(5827, Type.INTEGER)));
        models.add(object(3312, write(5850, Type.BOOLEAN), write(5851, Type.INTEGER)));
        models.add(object(3411, read(1, Type.INTEGER), read(3, Type.FLOAT), write(5, Type.INTEGER), write(7, Type.BOOLEAN)));
        models.add(object(3421, read(1, Type.FLOAT), read(6, Type.FLOAT), read(23, Type.FLOAT), read(25, Type.FLOAT),
                read(26, Type.FLOAT)));
        return models;
    }

    private static ObjectModel object(int id, ResourceModel... resources) {
        return new ObjectModel(id, "object " + id, "", "1.0", true, false, resources);
    }

    private static ResourceModel read(int id, Type type) {
        return resource(id, Operations.R, type);
    }

    private static ResourceModel write(int id, Type type) {
        return resource(id, Operations.RW, type);
    }

    private static ResourceModel execute(int id) {
        return resource(id, Operations.E, Type.NONE);
    }

    private static ResourceModel resource(int id, Operations operations, Type type) {
        return new ResourceModel(id, "resource " + id, operations, false, false, type, "", "", "");
    }
}
