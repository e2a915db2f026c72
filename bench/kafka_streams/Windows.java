// Kafka Streams' own tumbling windows: one thread, its cache, at-least-once, results when a window closes; until SIGTERM.
//
// java -cp JARS bench/kafka_streams/Windows.java BROKER TOPIC INTO STATE SIZE_MS GRACE_MS

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Locale;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.Suppressed;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.kstream.WindowOperator;
import org.apache.kafka.streams.state.WindowStore;

public final class Windows {
    private static final JsonFactory JSON = new JsonFactory();

    record Reading(long ts, double current) {}

    record Folded(long count, double min, double max, double sum) {
        Folded add(double value) {
            return new Folded(count + 1, Math.min(min, value), Math.max(max, value), sum + value);
        }
    }

    public static void main(String[] arguments) {
        String broker = arguments[0], topic = arguments[1], into = arguments[2], state = arguments[3];
        Duration size = Duration.ofMillis(Long.parseLong(arguments[4]));
        Duration grace = Duration.ofMillis(Long.parseLong(arguments[5]));

        Serde<Reading> readings = Serdes.serdeFrom(
            (name, reading) -> { throw new UnsupportedOperationException("readings are only read"); },
            (name, bytes) -> bytes == null ? null : reading(bytes));
        Serde<Folded> folded = Serdes.serdeFrom((name, value) -> toBytes(value), (name, bytes) -> ofBytes(bytes));

        StreamsBuilder builder = new StreamsBuilder();
        builder
            .stream(topic, Consumed.with(Serdes.String(), readings)
                .withTimestampExtractor((record, partitionTime) -> ((Reading) record.value()).ts()))
            .groupByKey(Grouped.with(Serdes.String(), readings))
            .windowedBy(TimeWindows.ofSizeAndGrace(size, grace))
            .aggregate(
                () -> new Folded(0, Double.POSITIVE_INFINITY, Double.NEGATIVE_INFINITY, 0),
                (device, reading, before) -> before.add(reading.current()),
                Materialized.<String, Folded, WindowStore<Bytes, byte[]>>as("windows")
                    .withKeySerde(Serdes.String()).withValueSerde(folded).withCachingEnabled())
            .suppress(Suppressed.untilWindowCloses(Suppressed.BufferConfig.unbounded()))
            .toStream()
            .map((window, value) -> KeyValue.pair(window.key(), result(window, value)))
            .to(into, Produced.with(Serdes.String(), Serdes.ByteArray()));

        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, into);
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, broker);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, state);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 1_000);
        settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        settings.put(StreamsConfig.ENABLE_METRICS_PUSH_CONFIG, false);
        settings.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");

        KafkaStreams streams = new KafkaStreams(builder.build(), settings);
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            Runtime.getRuntime().halt(1);
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(10))));
        streams.start();
    }

    private static Reading reading(byte[] bytes) {
        try (JsonParser parser = JSON.createParser(bytes)) {
            long ts = 0;
            double current = 0;
            parser.nextToken();
            while (parser.nextToken() != JsonToken.END_OBJECT) {
                String name = parser.currentName();
                parser.nextToken();
                if (name.equals("ts")) {
                    ts = parser.getLongValue();
                } else if (name.equals("current")) {
                    current = parser.getDoubleValue();
                }
            }
            return new Reading(ts, current);
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    private static byte[] result(WindowOperator<String> window, Folded value) {
        return String.format(
            Locale.ROOT,
            "{\"start\":%d,\"end\":%d,\"count\":%d,\"min\":%s,\"max\":%s,\"mean\":%s}",
            window.window().start(),
            window.window().end(),
            value.count(),
            value.min(),
            value.max(),
            value.sum() / value.count()).getBytes(StandardCharsets.UTF_8);
    }

    private static byte[] toBytes(Folded value) {
        return ByteBuffer.allocate(32)
            .putLong(value.count()).putDouble(value.min()).putDouble(value.max()).putDouble(value.sum()).array();
    }

    private static Folded ofBytes(byte[] bytes) {
        if (bytes == null) {
            return null;
        }
        ByteBuffer buffer = ByteBuffer.wrap(bytes);
        return new Folded(buffer.getLong(), buffer.getDouble(), buffer.getDouble(), buffer.getDouble());
    }
}
