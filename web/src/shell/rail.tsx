import { type Connection, connection } from "../state/connection";
import { PAGES, route } from "../state/route";
import { server } from "../state/server";
import { texts } from "../texts/en";
import { Icon } from "../ui/icon";
import { isPaletteOpen } from "./palette";

const DOTS: Record<Connection, string> = { connecting: "", online: "good", lost: "bad", refused: "busy" };

function openPalette() {
  isPaletteOpen.value = true;
}

export function Rail() {
  return (
    <header class="rail">
      <div class="brand">
        <img src="icon.svg" alt="" width="26" height="26" />
        {texts.shell.title}
      </div>
      <button class="button palette-button" type="button" onClick={openPalette}>
        <span class="row">
          <Icon name="search" /> {texts.shell.search}
        </span>
        <kbd>Ctrl K</kbd>
      </button>
      <nav aria-label={texts.shell.navigation}>
        <ul>
          {PAGES.map((page) => (
            <li key={page}>
              <a href={`#/${page}`} aria-current={route.value.page === page ? "page" : undefined}>
                <Icon name={page} />
                {texts.shell.pages[page]}
              </a>
            </li>
          ))}
        </ul>
      </nav>
      <div class="rail-foot">
        <div class="connection" role="status">
          <span class={`dot ${DOTS[connection.value]}`} />
          {texts.shell.connection[connection.value]}
          {connection.value === "online" && server.value && <span>· {server.value.version}</span>}
        </div>
      </div>
    </header>
  );
}
