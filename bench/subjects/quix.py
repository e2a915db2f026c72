"""Quix Streams' own tumbling window: one message at a time, state and changelog on."""

import warnings

with warnings.catch_warnings(record=True):
    from quixstreams import Application
    from quixstreams.dataframe.windows import Count, Max, Mean, Min

from bench.subjects import Meter, arguments


def main() -> None:
    flags = arguments()
    meter = Meter(flags.readings)

    def processed(_topic: str, _partition: int, _offset: int) -> None:
        if meter.add(1):
            app.stop()

    app = Application(
        broker_address=flags.broker,
        consumer_group=flags.group,
        auto_offset_reset="earliest",
        state_dir=flags.folder,
        loglevel="ERROR",
        on_message_processed=processed,
        consumer_extra_config={"enable.metrics.push": False},
        producer_extra_config={"enable.metrics.push": False},
    )
    topic = app.topic(flags.topic, timestamp_extractor=lambda value, *_: value["ts"])
    frame = app.dataframe(topic)
    window = frame.tumbling_window(10_000, 1_000)
    window = window.agg(count=Count(), min=Min("current"), max=Max("current"), mean=Mean("current"))
    window.final().to_topic(app.topic(flags.group))
    app.run()
    meter.report()


if __name__ == "__main__":
    main()
