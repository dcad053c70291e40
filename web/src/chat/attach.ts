/** Attaches files to the question that is being written. */
import { explain } from "../api/errors";
import { toast } from "../ui/toast";
import { attachmentOf } from "./files";
import { draft } from "./state";

/** Attach `files` in their order; those that cannot be attached are refused in words. */
export async function attach(files: readonly File[]): Promise<void> {
  draft.reading.value = [...draft.reading.value, ...files];
  for (const file of files) {
    try {
      const attachment = await attachmentOf(file);
      draft.attachments.value = [...draft.attachments.value, attachment];
    } catch (error) {
      toast(explain(error), "bad");
    } finally {
      draft.reading.value = draft.reading.value.filter((each) => each !== file);
    }
  }
}
