import { useState } from "preact/hooks";
import type { History } from "../api/types";
import { activities } from "../state/activity";
import { usePolled } from "../state/polling";
import { server } from "../state/server";
import { texts } from "../texts/en";
import { duration, percent, rate } from "../texts/format";
import { Button } from "../ui/button";
import { Plot } from "./plot";
import { cacheHits, latency, memory, throughput } from "./series";

const WINDOWS = ["300", "900", "3600"] as const;
const PERIOD_MS = 3_000;
const GB = 1e9;

export function PlotsView() {
  const [seconds, setSeconds] = useState<(typeof WINDOWS)[number]>("900");
  const history = usePolled<History>("v1/models/history?seconds=3600", PERIOD_MS);
  // The server's clock, which may differ from the browser's; without it, the browser's.
  const to = history.value?.as_of ?? Date.now() / 1_000;
  const from = to - Number(seconds);
  const list = activities.value;
  const words = texts.plots;
  const pools = ["host", ...Object.keys(server.value?.memory?.devices ?? {})];
  const taken = memory(history.value?.data ?? [], pools, from, to);
  const inGb = { xs: taken.xs, lines: taken.lines.map((line) => line.map((value) => (value ?? 0) / GB)) };
  return (
    <>
      <fieldset class="row choices" aria-label={words.window}>
        {WINDOWS.map((name) => (
          <Button key={name} kind="quiet" pressed={name === seconds} onPress={() => setSeconds(name)}>
            {words.windows[name]}
          </Button>
        ))}
      </fieldset>
      <div class="plots">
        <Plot
          title={words.throughput}
          hint={words.throughputHint}
          labels={[words.written, words.read]}
          series={throughput(list, from, to)}
          show={rate}
        />
        <Plot
          title={words.latency}
          hint={words.latencyHint}
          labels={[words.median, words.p95]}
          series={latency(list, from, to)}
          show={duration}
          points
        />
        <Plot
          title={words.cache}
          hint={words.cacheHint}
          labels={[words.hits]}
          series={cacheHits(list, from, to)}
          show={percent}
          points
          most={1}
        />
        <Plot
          title={words.memory}
          hint={words.memoryHint}
          labels={pools}
          series={inGb}
          show={(value) => `${value.toFixed(2)} GB`}
        />
      </div>
    </>
  );
}
