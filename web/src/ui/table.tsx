import type { ComponentChildren } from "preact";

export interface Column<Row> {
  key: string;
  title: string;
  cell: (row: Row) => ComponentChildren;
  /** Numbers stand at the right, so that their digits line up. */
  number?: boolean;
}

export interface TableProps<Row> {
  /** What the table shows, for screen readers. */
  caption: string;
  columns: readonly Column<Row>[];
  rows: readonly Row[];
  rowKey: (row: Row) => string;
  /** Makes rows clickable; the first cell becomes a button for the keyboard. */
  onOpen?: (row: Row) => void;
  empty: ComponentChildren;
}

export function Table<Row>({ caption, columns, rows, rowKey, onOpen, empty }: TableProps<Row>) {
  if (rows.length === 0) return <div class="empty">{empty}</div>;
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by the keyboard.
    <section class="table-scroll" aria-label={caption} tabIndex={0}>
      <table class="table">
        <thead>
          <tr>
            {columns.map(({ key, title, number }) => (
              <th key={key} scope="col" class={number ? "number" : ""}>
                {title}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={rowKey(row)} class={onOpen ? "clickable" : ""} onClick={onOpen && (() => onOpen(row))}>
              {columns.map(({ key, cell, number }, place) => (
                <td key={key} class={number ? "number" : ""}>
                  {onOpen && place === 0 ? (
                    <button class="link" type="button">
                      {cell(row)}
                    </button>
                  ) : (
                    cell(row)
                  )}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}
