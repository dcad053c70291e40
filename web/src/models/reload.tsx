import { useState } from "preact/hooks";
import { call } from "../api/client";
import type { ReloadedConfig } from "../api/types";
import { refreshServer } from "../state/server";
import { texts } from "../texts/en";
import { Button } from "../ui/button";
import { Dialog } from "../ui/dialog";
import { Icon } from "../ui/icon";
import { toast } from "../ui/toast";
import { reloadLines } from "./reload-lines";

/** Reads the configuration again, after it was shown what that changes. */
export function ReloadButton() {
  const [preview, setPreview] = useState<ReloadedConfig | null>(null);

  async function apply() {
    await call("v1/config/reload", { method: "POST" });
    setPreview(null);
    toast(texts.reload.applied, "good");
    await refreshServer();
  }

  const lines = preview ? reloadLines(preview) : [];
  return (
    <>
      <Button
        label={texts.reload.button}
        onPress={async () =>
          setPreview(await call<ReloadedConfig>("v1/config/reload?dry_run=true", { method: "POST" }))
        }
      >
        <Icon name="refresh" size={16} /> <span class="wide-only">{texts.reload.button}</span>
      </Button>
      {preview && (
        <Dialog
          title={texts.reload.title}
          onClose={() => setPreview(null)}
          actions={
            <>
              <Button onPress={() => setPreview(null)}>{texts.common.cancel}</Button>
              {lines.length > 0 && (
                <Button kind="primary" onPress={apply}>
                  {texts.reload.apply}
                </Button>
              )}
            </>
          }
        >
          {lines.length === 0 && <p>{texts.reload.nothing}</p>}
          <dl class="facts">
            {lines.map(({ title, items }) => (
              <div key={title}>
                <dt>{title}</dt>
                {items.map((item) => (
                  <dd key={item} class="wrap-anywhere">
                    {item}
                  </dd>
                ))}
              </div>
            ))}
          </dl>
        </Dialog>
      )}
    </>
  );
}
