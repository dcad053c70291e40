// Devices for tests: the processor behind llama.cpp's RPC backend, each with a memory size of its own.
//
// One library for both ends. A process that computes loads it as a backend of ggml; a process that is a device calls
// serve_device. llama.cpp's own server serves one client after the other and reports the memory of the machine, so the
// accepting loop is this one: as many clients as there are processes with engines, and a bound of the memory.

#include "ggml-rpc.cpp"

#include "ggml-cpu.h"

#include <atomic>
#include <cstdlib>
#include <sstream>

#include <fcntl.h>
#include <sys/mman.h>

namespace {

size_t                     total_bytes = 0;
std::atomic<size_t> *      used_bytes = nullptr;
ggml_backend_buffer_type   bounded_buft;
ggml_backend_device        bounded_device;
ggml_backend_buffer_type_t cpu_buft   = nullptr;
ggml_backend_dev_t         cpu_device = nullptr;

void (*cpu_free_buffer)(ggml_backend_buffer_t) = nullptr;

void free_buffer(ggml_backend_buffer_t buffer) {
    *used_bytes -= buffer->size;
    cpu_free_buffer(buffer);
}

ggml_backend_buffer_t alloc_buffer(ggml_backend_buffer_type_t buft, size_t size) {
    if (used_bytes->fetch_add(size) + size > total_bytes) {
        *used_bytes -= size;
        return nullptr;
    }
    ggml_backend_buffer_t buffer = cpu_buft->iface.alloc_buffer(buft, size);
    if (buffer == nullptr) {
        *used_bytes -= size;
        return nullptr;
    }
    *used_bytes += buffer->size - size;
    cpu_free_buffer           = buffer->iface.free_buffer;
    buffer->iface.free_buffer = free_buffer;
    return buffer;
}

void get_memory(ggml_backend_dev_t, size_t * free, size_t * total) {
    *total = total_bytes;
    *free  = total_bytes - std::min(total_bytes, used_bytes->load());
}

ggml_backend_buffer_type_t get_buffer_type(ggml_backend_dev_t) {
    return &bounded_buft;
}

} // namespace

// Serves clients on a port of the loopback interface as a device with so many bytes of memory. Returns on failure.
// `used` is a file of eight bytes that always holds the number of bytes that are allocated.
extern "C" __attribute__((visibility("default"))) int serve_device(int port, size_t bytes, int threads, const char * used) {
    int file = open(used, O_RDWR);
    if (file < 0) {
        return 4;
    }
    void * shared = mmap(nullptr, sizeof(std::atomic<size_t>), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (shared == MAP_FAILED) {
        return 4;
    }
    used_bytes = new (shared) std::atomic<size_t>(0);
    cpu_device = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    if (cpu_device == nullptr) {
        return 1;
    }
    total_bytes                          = bytes;
    cpu_buft                             = ggml_backend_dev_buffer_type(cpu_device);
    bounded_buft                         = *cpu_buft;
    bounded_buft.iface.alloc_buffer      = alloc_buffer;
    bounded_device                       = *cpu_device;
    bounded_device.iface.get_memory      = get_memory;
    bounded_device.iface.get_buffer_type = get_buffer_type;
    bounded_buft.device                  = &bounded_device;
    auto server = socket_t::create_server("127.0.0.1", port);
    if (server == nullptr) {
        return 2;
    }
    printf("listening\n");
    fflush(stdout);
    while (true) {
        auto client = server->accept();
        if (client == nullptr) {
            return 3;
        }
        std::thread([client, threads] {
            ggml_backend_t backend = ggml_backend_dev_init(cpu_device, nullptr);
            ggml_backend_cpu_set_n_threads(backend, threads);
            backend->device = &bounded_device;
            rpc_serve_client({ backend }, nullptr, client);
            ggml_backend_free(backend);
        }).detach();
    }
}

// Registers the devices of all servers in MODELYARD_TEST_DEVICES ("host:port,host:port"), in their order.
extern "C" __attribute__((visibility("default"))) ggml_backend_reg_t ggml_backend_init(void) {
    const char * servers = std::getenv("MODELYARD_TEST_DEVICES");
    std::stringstream list(servers == nullptr ? "" : servers);
    for (std::string endpoint; std::getline(list, endpoint, ',');) {
        // The RPC backend ends the process where it cannot connect; a driver would not list a device that is gone.
        std::string host;
        int         port = 0;
        if (!parse_endpoint(endpoint, host, port) || socket_t::connect(host.c_str(), port) == nullptr) {
            continue;
        }
        ggml_backend_register(ggml_backend_rpc_add_server(endpoint.c_str()));
    }
    return ggml_backend_rpc_reg();
}
