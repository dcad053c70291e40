import { recoveries } from "../state/connection";
import { texts } from "../texts/en";
import { toast } from "../ui/toast";

/** Says that the server is back whenever it was away. */
export function announceRecoveries(): void {
  recoveries.subscribe((times) => {
    if (times > 0) toast(texts.shell.recovered, "good");
  });
}
