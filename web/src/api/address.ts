/**
 * Address of an endpoint such as "v1/models".
 *
 * The page is at <root>/ui/, so "../" is the server's root, also behind a path prefix of a proxy.
 */
export function address(path: string, page: string = document.baseURI): string {
  const ui = new URL(page);
  ui.hash = "";
  ui.search = "";
  return new URL(ui.pathname.includes("/ui/") ? `../${path}` : path, ui).href;
}
