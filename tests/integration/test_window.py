"""Outside its connector's delivery windows mail waits, without an attempt, and says until when."""
import time

from harness import Case


class Window(Case):
    def test_waits_and_opens_by_reload(self):
        remote = self.partner()
        hour = (time.gmtime().tm_hour + 12) % 24
        relay = self.relay_to(remote, f"window daily {hour:02}:00-{hour:02}:30 utc")
        self.send(relay)
        row = relay.until(lambda rows: rows and rows[0]["state"] == "window", "queue")[0]
        self.assertGreater(row["window_opens_unix_ms"], time.time() * 1000)
        self.assertIn("window opens", relay.ctl_run("queue", options=()).stdout)
        self.assertEqual(0, remote.connections)
        relay.blocks["connectors"] = relay.blocks["connectors"].replace(
            f"daily {hour:02}:00-{hour:02}:30 utc", "daily 00:00-24:00 Europe/Berlin")
        relay.write_config()
        relay.ctl("reload")
        remote.wait_messages(1)
        relay.wait_empty()
