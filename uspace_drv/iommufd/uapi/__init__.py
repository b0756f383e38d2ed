"""Numbers and structures of /dev/iommu, as Linux include/uapi/linux/iommufd.h has them."""
