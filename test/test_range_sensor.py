# SPDX-License-Identifier: Apache-2.0
"""Which of a range sensor's messages serves an image."""

import pytest
from ros import bench
from sensor_msgs.msg import LaserScan

from depth_anything_ros.messages.cdr import MessageError
from depth_anything_ros.node.range_sensor import RangeSensor
from depth_anything_ros.stream.settings import SettingsError


def test_messages_are_there_for_an_image_that_was_long_in_the_network():
    with bench(listen=()) as it:
        sensor = RangeSensor(it.node, "/scan")
        publisher = it.node.create_publisher(LaserScan, "/scan", 200)
        it.wait(lambda: sensor.refresh() or not sensor.problem, "a publisher of the scan")
        it.wait(lambda: publisher.get_subscription_count() > 0, "a reader of the scan")

        def send(stamp_ns, distance):
            scan = LaserScan(angle_increment=0.1, range_min=0.1, range_max=200.0)
            scan.header.stamp.sec, scan.header.stamp.nanosec = divmod(stamp_ns, 10**9)
            scan.ranges = [distance]
            publisher.publish(scan)
            it.spin(0.01)

        for number in range(120):  # 40 Hz for 3 s, then an image of the first 0.1 s is asked about
            send(100 * 10**9 + number * 25 * 10**6, 1.0 + number)
        assert sensor.at(100 * 10**9 + 101 * 10**6, 0.1)[1][0, 0] == 5.0
        with pytest.raises(MessageError, match="nothing within 0.1 s of the image"):
            sensor.at(99 * 10**9, 0.1)
        send(115 * 10**9, 7.0)  # what is older than ten seconds is let go
        with pytest.raises(MessageError):
            sensor.at(100 * 10**9, 0.1)
        send(50 * 10**9, 9.0)  # a bag that begins anew
        assert sensor.at(50 * 10**9, 0.1)[1][0, 0] == 9.0
        with pytest.raises(MessageError):
            sensor.at(115 * 10**9, 0.1)
        sensor.close()


def test_a_name_that_is_no_topic_is_refused():
    with bench(listen=()) as it, pytest.raises(SettingsError, match="scale.topic: "):
        RangeSensor(it.node, "bad topic")
