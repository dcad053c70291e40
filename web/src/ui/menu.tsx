import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { explain } from "../api/errors";
import { toast } from "./toast";

export interface MenuItem {
  title: string;
  onPress: () => unknown;
  /** A sentence below the title. */
  hint?: string;
  danger?: boolean;
}

export interface MenuProps {
  label: string;
  items: readonly MenuItem[];
  children: ComponentChildren;
}

/** A button that opens a list of actions. */
export function Menu({ label, items, children }: MenuProps) {
  const [isOpen, setOpen] = useState(false);
  const root = useRef<HTMLDivElement>(null);
  const button = useRef<HTMLButtonElement>(null);

  useEffect(() => {
    if (!isOpen) return;
    root.current?.querySelector<HTMLElement>("[role=menuitem]")?.focus();
    const outside = (event: Event) => {
      if (event.target instanceof Node && !root.current?.contains(event.target)) setOpen(false);
    };
    document.addEventListener("pointerdown", outside);
    return () => document.removeEventListener("pointerdown", outside);
  }, [isOpen]);

  function keys(event: KeyboardEvent) {
    const found = [...(root.current?.querySelectorAll<HTMLElement>("[role=menuitem]") ?? [])];
    const at = found.indexOf(document.activeElement as HTMLElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: -1 }[event.key];
    if (event.key === "Escape" || event.key === "Tab") {
      setOpen(false);
      if (event.key === "Escape") button.current?.focus();
    } else if (to !== undefined) {
      event.preventDefault();
      found.at(to % found.length)?.focus();
    }
  }

  async function choose(item: MenuItem) {
    setOpen(false);
    button.current?.focus();
    try {
      await item.onPress();
    } catch (error) {
      toast(explain(error), "bad");
    }
  }

  return (
    <div ref={root} class="menu">
      <button
        ref={button}
        class="button quiet icon"
        type="button"
        aria-haspopup="menu"
        aria-expanded={isOpen}
        aria-label={label}
        title={label}
        onClick={() => setOpen(!isOpen)}
      >
        {children}
      </button>
      {isOpen && (
        <div class="menu-list" role="menu" aria-label={label} tabIndex={-1} onKeyDown={keys}>
          {items.map((item) => (
            <button
              key={item.title}
              class={item.danger ? "danger" : ""}
              type="button"
              role="menuitem"
              tabIndex={-1}
              onClick={() => choose(item)}
            >
              {item.title}
              {item.hint && <div class="muted small">{item.hint}</div>}
            </button>
          ))}
        </div>
      )}
    </div>
  );
}
