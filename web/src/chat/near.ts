/** Long conversations render what is near the visible part, and the rest when it is scrolled there. */
import type { RefObject } from "preact";
import { useEffect, useState } from "preact/hooks";

/** How far outside of the visible part something is rendered already. */
const MARGIN = "1200px 0px";

/** Whether the element has been near the visible part of the page once. */
export function useNear(element: RefObject<HTMLElement | null>): boolean {
  const [isNear, setNear] = useState(false);
  useEffect(() => {
    const { current } = element;
    if (isNear || current === null) return;
    const observer = new IntersectionObserver(
      (entries) => {
        if (entries.some((entry) => entry.isIntersecting)) setNear(true);
      },
      { root: current.closest(".messages"), rootMargin: MARGIN },
    );
    observer.observe(current);
    return () => observer.disconnect();
  }, [isNear]);
  return isNear;
}
