import { connection } from "../state/connection";
import { route } from "../state/route";
import { texts } from "../texts/en";

/** A line above every page while the server is away, or refuses the key. */
export function Banner() {
  if (connection.value === "lost") {
    return (
      <div class="banner" role="alert">
        {texts.shell.lost}
      </div>
    );
  }
  if (connection.value === "refused" && route.value.page !== "settings") {
    return (
      <div class="banner" role="alert">
        {texts.shell.refused} <a href="#/settings">{texts.shell.enterKey}</a>
      </div>
    );
  }
  return null;
}
