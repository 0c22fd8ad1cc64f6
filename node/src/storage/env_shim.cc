// The bridge from RocksDB's encrypting file system to the cipher in Rust (env.rs). It holds no key and no policy:
// it carries buffers over, and turns a refusal into a Status. Nothing here throws.

#include <cstdint>
#include <memory>
#include <string>

#include "rocksdb/env.h"
#include "rocksdb/env_encryption.h"
#include "rocksdb/status.h"

// Mirrors db/c.cc; build.rs compares the text. `rocksdb_env_destroy` deletes both.
struct rocksdb_env_t {
  rocksdb::Env* rep;
  bool is_default;
};

extern "C" {

// Calls into Rust. A reason is at most `reason_len` bytes with a zero at the end; a result of 0 is success.
struct rookery_cipher {
  void* context;
  std::size_t header_bytes;
  int (*new_header)(void* context, std::uint8_t* header, std::size_t len, char* reason,
                    std::size_t reason_len);
  void* (*open)(void* context, const std::uint8_t* header, std::size_t len, char* reason,
                std::size_t reason_len);
  int (*apply)(const void* stream, std::uint64_t offset, std::uint8_t* data, std::size_t len);
  void (*close)(void* stream);
  void (*release)(void* context);
};

}  // extern "C"

namespace {

using rocksdb::BlockAccessCipherStream;
using rocksdb::EnvOptions;
using rocksdb::Slice;
using rocksdb::Status;

constexpr std::size_t kReasonBytes = 256;

class Stream final : public BlockAccessCipherStream {
 public:
  Stream(const rookery_cipher& cipher, void* stream) : cipher_(cipher), stream_(stream) {}
  ~Stream() override { cipher_.close(stream_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  std::size_t BlockSize() override { return 64; }

  Status Encrypt(std::uint64_t offset, char* data, std::size_t len) override {
    if (cipher_.apply(stream_, offset, reinterpret_cast<std::uint8_t*>(data), len) != 0) {
      return Status::IOError("the file is too long for its cipher");
    }
    return Status::OK();
  }

  Status Decrypt(std::uint64_t offset, char* data, std::size_t len) override {
    return Encrypt(offset, data, len);
  }

 protected:
  // Only the base class's own Encrypt and Decrypt call these.
  void AllocateScratch(std::string&) override {}
  Status EncryptBlock(std::uint64_t, char*, char*) override { return Status::NotSupported(); }
  Status DecryptBlock(std::uint64_t, char*, char*) override { return Status::NotSupported(); }

 private:
  const rookery_cipher cipher_;
  void* const stream_;
};

class Provider final : public rocksdb::EncryptionProvider {
 public:
  explicit Provider(const rookery_cipher& cipher) : cipher_(cipher) {}
  ~Provider() override { cipher_.release(cipher_.context); }
  Provider(const Provider&) = delete;
  Provider& operator=(const Provider&) = delete;

  const char* Name() const override { return "RookeryProvider"; }

  std::size_t GetPrefixLength() const override { return cipher_.header_bytes; }

  Status CreateNewPrefix(const std::string& name, char* prefix, std::size_t len) const override {
    char reason[kReasonBytes] = {0};
    auto* header = reinterpret_cast<std::uint8_t*>(prefix);
    if (cipher_.new_header(cipher_.context, header, len, reason, sizeof reason) != 0) {
      return Status::IOError(name, reason);
    }
    return Status::OK();
  }

  Status AddCipher(const std::string&, const char*, std::size_t, bool) override {
    return Status::NotSupported();
  }

  Status CreateCipherStream(const std::string& name, const EnvOptions&, Slice& prefix,
                            std::unique_ptr<BlockAccessCipherStream>* result) override {
    char reason[kReasonBytes] = {0};
    const auto* header = reinterpret_cast<const std::uint8_t*>(prefix.data());
    void* stream = cipher_.open(cipher_.context, header, prefix.size(), reason, sizeof reason);
    if (stream == nullptr) {
      return Status::Corruption(name, reason);
    }
    *result = std::make_unique<Stream>(cipher_, stream);
    return Status::OK();
  }

 private:
  const rookery_cipher cipher_;
};

}  // namespace

extern "C" rocksdb_env_t* rookery_encrypting_env(const rookery_cipher* cipher) {
  auto provider = std::make_shared<Provider>(*cipher);
  return new rocksdb_env_t{rocksdb::NewEncryptedEnv(rocksdb::Env::Default(), provider), false};
}
