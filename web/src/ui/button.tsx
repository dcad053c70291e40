import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { explain, isAbort } from "../api/errors";
import { toast } from "./toast";

export interface ButtonProps {
  children: ComponentChildren;
  /**
   * While a returned promise is pending, further presses do nothing; its failure is shown as a toast. The button keeps
   * the focus meanwhile, so that a dialog that the promise opens gives it back.
   */
  onPress?: (event: MouseEvent) => unknown;
  kind?: "plain" | "primary" | "danger" | "quiet";
  type?: "button" | "submit";
  /** Read out in place of the contents; needed where these are an icon. */
  label?: string;
  icon?: boolean;
  disabled?: boolean;
  pressed?: boolean;
  autofocus?: boolean;
  title?: string;
}

export function Button(props: ButtonProps) {
  const {
    children,
    onPress,
    kind = "plain",
    type = "button",
    label,
    icon,
    disabled,
    pressed,
    autofocus,
    title,
  } = props;
  const [isBusy, setBusy] = useState(false);
  const element = useRef<HTMLButtonElement>(null);
  useEffect(() => {
    if (autofocus) element.current?.focus();
  }, [autofocus]);

  async function press(event: MouseEvent) {
    if (isBusy) {
      event.preventDefault();
      return;
    }
    const work = onPress?.(event);
    if (!(work instanceof Promise)) return;
    setBusy(true);
    try {
      await work;
    } catch (error) {
      if (!isAbort(error)) toast(explain(error), "bad");
    } finally {
      setBusy(false);
    }
  }

  return (
    <button
      ref={element}
      class={`button ${kind} ${icon ? "icon" : ""}`}
      type={type}
      aria-label={label}
      aria-pressed={pressed}
      aria-busy={isBusy || undefined}
      aria-disabled={isBusy || undefined}
      title={title ?? (icon ? label : undefined)}
      disabled={disabled}
      onClick={press}
    >
      {children}
    </button>
  );
}
