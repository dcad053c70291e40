import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { ModelsPage } from "./models";
import { Banner } from "./shell/banner";
import { Boundary } from "./shell/boundary";
import { lazy } from "./shell/lazy";
import { Palette } from "./shell/palette";
import { Rail } from "./shell/rail";
import { type Page, route } from "./state/route";
import { texts } from "./texts/en";
import { Toasts } from "./ui/toast";

const VIEWS = {
  models: ModelsPage,
  chat: lazy(() => import("./chat")),
  activity: lazy(() => import("./activity")),
  settings: lazy(() => import("./settings")),
};

export function App() {
  const { page } = route.value;
  const View = VIEWS[page];
  return (
    <div class="shell">
      <button class="button skip" type="button" onClick={() => document.getElementById("main")?.focus()}>
        {texts.shell.skip}
      </button>
      <Rail />
      <Banner />
      <Main page={page}>
        <Boundary key={page}>
          <View />
        </Boundary>
      </Main>
      <Palette />
      <Toasts />
    </div>
  );
}

function Main({ page, children }: { page: Page; children: ComponentChildren }) {
  const element = useRef<HTMLElement>(null);
  const isFirst = useRef(true);
  useEffect(() => {
    document.title = `${texts.shell.pages[page]} · ${texts.shell.title}`;
    // A new page is read out from its beginning; the first one leaves the focus where the browser put it.
    if (!isFirst.current) element.current?.focus();
    isFirst.current = false;
  }, [page]);
  return (
    <main ref={element} id="main" class="main" tabIndex={-1}>
      {children}
    </main>
  );
}
