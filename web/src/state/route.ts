import { signal } from "@preact/signals";

export type Page = "models" | "chat" | "activity" | "settings";

export const PAGES: readonly Page[] = ["models", "chat", "activity", "settings"];

/** A place in the page: "#/chat/3f2a?model=smollm2" is page "chat", rest "3f2a", and its query. */
export interface Route {
  page: Page;
  rest: string;
  query: URLSearchParams;
}

export function parseRoute(hash: string): Route {
  const text = hash.replace(/^#?\/?/, "");
  const mark = text.indexOf("?");
  const path = mark < 0 ? text : text.slice(0, mark);
  const [first = "", ...others] = path.split("/");
  const page = PAGES.find((name) => name === first) ?? "models";
  return { page, rest: others.map(decode).join("/"), query: new URLSearchParams(mark < 0 ? "" : text.slice(mark + 1)) };
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Where the page is. It follows the address once `followLocation` was called. */
export const route = signal<Route>(parseRoute(""));

export function followLocation(): void {
  const read = () => {
    route.value = parseRoute(location.hash);
  };
  window.addEventListener("hashchange", read);
  read();
}

/** Goes to a place such as "chat/3f2a". */
export function go(place: string): void {
  location.hash = `#/${place}`;
}
