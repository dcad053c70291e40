import { render } from "preact";
import { App } from "./app";
import { announceRecoveries } from "./shell/recovery";
import { listenForShortcuts } from "./shell/shortcuts";
import { keepReading } from "./state/reading";
import { followLocation } from "./state/route";
import { applyTheme } from "./state/theme";
import "./styles";

applyTheme();
followLocation();
keepReading();
listenForShortcuts();
announceRecoveries();

const root = document.getElementById("app");
if (root) render(<App />, root);

// Only where the page is served below /ui/: the development server must not be cached.
if ("serviceWorker" in navigator && import.meta.env.PROD) {
  // Refused where the origin is not secure, in which case the page is read from the server every time.
  navigator.serviceWorker.register(new URL("sw.js", document.baseURI)).catch(() => undefined);
}
