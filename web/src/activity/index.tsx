import { useEffect } from "preact/hooks";
import { followActivities } from "../state/activity";
import { go, route } from "../state/route";
import { texts } from "../texts/en";
import { type Tab, Tabs } from "../ui/tabs";
import "./activity.css";
import { LogView } from "./log";
import { PlotsView } from "./plots";
import { RequestsView } from "./requests";

type View = keyof typeof texts.activity.tabs;

const TABS: readonly Tab<View>[] = (["requests", "plots", "log"] as const).map((name) => ({
  name,
  title: texts.activity.tabs[name],
}));

export default function ActivityPage() {
  useEffect(followActivities, []);
  const [first = "", ...rest] = route.value.rest.split("/");
  const view = TABS.find(({ name }) => name === first)?.name ?? "requests";
  return (
    <div class="page">
      <h1>{texts.activity.title}</h1>
      <Tabs label={texts.activity.title} tabs={TABS} chosen={view} onChoose={(name) => go(`activity/${name}`)}>
        {view === "requests" && <RequestsView openId={rest.join("/") || null} />}
        {view === "plots" && <PlotsView />}
        {view === "log" && <LogView />}
      </Tabs>
    </div>
  );
}
