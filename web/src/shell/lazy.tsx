import type { ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";
import { texts } from "../texts/en";

/** A component whose code is read when it is first shown. */
export function lazy(load: () => Promise<{ default: ComponentType }>): ComponentType {
  let known: ComponentType | null = null;
  return function Lazy() {
    const [, setReady] = useState(known !== null);
    const [error, setError] = useState<unknown>(null);
    useEffect(() => {
      if (known) return;
      let isShown = true;
      load().then(
        (module) => {
          known = module.default;
          if (isShown) setReady(true);
        },
        (reason: unknown) => isShown && setError(reason),
      );
      return () => {
        isShown = false;
      };
    }, []);
    // Thrown in render, so that the boundary around it shows it.
    if (error !== null) throw error;
    const Loaded = known;
    return Loaded ? <Loaded /> : <p class="empty">{texts.common.loading}</p>;
  };
}
